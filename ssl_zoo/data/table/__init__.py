"""Tables: rows of numbers and categories from CSV, TSV or Parquet files, or from scikit-learn."""
