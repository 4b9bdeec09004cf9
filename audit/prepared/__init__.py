"""What was prepared of a model, kept between commands: prefixes with their states, the sink key and the calibration.

`origin` says what all of it depends on. `entry` reads and writes one file of the cache folder. `store` keeps and returns
what was prepared. `null_sample` holds the ordinary subjects that thresholds are calibrated on.
Out of scope: key statistics, which have a file format of their own.
"""
