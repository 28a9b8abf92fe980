"""The tests of netpredict; the folders mirror the modules."""
