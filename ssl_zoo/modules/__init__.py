"""Small stateful parts that methods are made of."""
