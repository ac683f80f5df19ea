"""Operations on batches of graphs, one random draw for each graph."""
