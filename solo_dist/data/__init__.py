"""Data: the record contract (schema), geometry, sharding and the input pipeline."""
