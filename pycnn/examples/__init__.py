"""Kernels of your own, worked out: each module registers one, and `pycnn bench --kernel` proves and races it.

    numba_direct   a direct convolution in Python, by numba.cuda
    cuda_direct    the same in CUDA C++

    $ pycnn bench --kernel pycnn.examples.cuda_direct --problem n1c64h56_k64r3_pd1

Neither is quick; they are there to be read, copied and improved.  A Triton kernel needs no example: what starts it is a
callable like any other, and CuPy's arrays become torch's without a copy:

    def fprop(x, w, shape):
        x, w = torch.from_dlpack(x), torch.from_dlpack(w)
        y = torch.empty(shape.y_shape, device=x.device)
        with torch.cuda.stream(torch.cuda.ExternalStream(cupy.cuda.get_current_stream().ptr)):
            my_triton_kernel[(triton.cdiv(y.numel(), 256),)](x, w, y, shape.C, shape.H, shape.W, BLOCK=256)
        return cupy.from_dlpack(y)

    pycnn.register_conv2d("my_triton", fprop=fprop, backends=["cuda"])
"""
