"""Files that survive a kill: atomic writes, journals, the cache, the Hub's files.

What is written for good goes through `atomic`; what comes from outside through `safetensors`.
"""
