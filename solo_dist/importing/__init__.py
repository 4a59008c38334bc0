"""From the files of annotation tools to one COCO instances json, and back to those files for corrections.

    readers   labelme, yolo, instance_pngs, coco_merge      files -> Dataset
    choices   categories                                    Dataset -> Dataset
    writers   coco_json, to_labelme, to_yolo                Dataset -> files
    split     a COCO json -> train, validation and test

Nothing is lost in silence: each annotation that a reader leaves out or changes is an entry of the Report with its file
and a reason.
"""
