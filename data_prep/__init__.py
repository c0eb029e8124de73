"""Music and audio made into data sets: readers, splits and the HDF5 store they share.

Nothing heavy is imported here; each reader imports what it needs in its own module.
"""
