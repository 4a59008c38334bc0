"""Data: COCO files to shards (`coco`, `sharding`), the record contract (`schema`), targets and the input pipeline."""
