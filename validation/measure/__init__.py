"""Parts of `measure_gpu.py`: what is measured, with which call, how it is timed and under which conditions.

Nothing here imports accelsim, so the folder and the script beside it can be copied to any machine with torch.
"""
