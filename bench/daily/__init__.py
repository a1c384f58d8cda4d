"""The daily loop, timed beside a Dockerfile written by hand: `python -m bench.daily`.

Every figure of ours has its counterpart from the same round: the same change, on the same engine, with the same base
and the same downloads, made by plain docker commands on `rival/Dockerfile`; and floors, which nobody can go below.
"""
