"""``ssl-zoo doctor``: what a training needs of a machine or a cluster, measured before one is started there."""
