"""The GPU path, proven: `python -m bench.gpu` packs what a machine with a GPU needs, and runs it there or here.

On the machine with the GPU nothing is needed but the folder, Linux, NVIDIA's driver and Python 3.10; no network, no
container engine, no NumPy. What runs there runs in the image's own files, with the image's Python and server.

    __main__.py   packs, and runs what it packed if this machine is to be the one
    pack.py       the folder: the image's files, the benchmark of the kernels, this program and what it imports
    run.py        goes along with the folder: begins the tests in the image's files, and writes the report
    inside.py     the tests
    served.py     of models, over HTTP
    alone.py      of pipelines, by DALI in one process
    kernels.cu    of the kernels, by CUDA alone
    floors.py     what the kernels have to reach
"""
