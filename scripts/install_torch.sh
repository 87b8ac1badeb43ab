#!/usr/bin/env bash
# install_torch.sh BIN: PyTorch and diffusers for tests on the CPU, into the virtual environment of BIN. PyPI's PyTorch is built for CUDA and
# its libraries must load even where there is no GPU: of NVIDIA's wheels only those are installed whose libraries are missing.
set -euo pipefail
bin=$1
"$bin/pip" install --quiet --no-deps 'torch==2.11.0'
"$bin/pip" install --quiet 'filelock' 'typing-extensions>=4.10' 'sympy>=1.13.3' networkx jinja2 fsspec 'setuptools<82' diffusers
libraries=$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/torch/lib
declare -A packages=(
  [libcublas.so.13]='nvidia-cublas==13.1.*' [libcublasLt.so.13]='nvidia-cublas==13.1.*'
  [libcudart.so.13]='nvidia-cuda-runtime==13.0.*' [libcudnn.so.9]='nvidia-cudnn-cu13==9.19.0.56'
  [libcufft.so.12]='nvidia-cufft==12.0.*' [libcufile.so.0]='nvidia-cufile==1.15.*'
  [libcupti.so.13]='nvidia-cuda-cupti==13.0.*' [libcurand.so.10]='nvidia-curand==10.4.*'
  [libcusolver.so.12]='nvidia-cusolver==12.0.*' [libcusparse.so.12]='nvidia-cusparse==12.6.*'
  [libcusparseLt.so.0]='nvidia-cusparselt-cu13==0.8.0' [libnccl.so.2]='nvidia-nccl-cu13==2.28.9'
  [libnvJitLink.so.13]='nvidia-nvjitlink==13.0.*' [libnvshmem_host.so.3]='nvidia-nvshmem-cu13==3.4.5'
  [libnvToolsExt.so.1]='nvidia-nvtx==13.0.*')
wanted=()
for library in $(ldd "$libraries"/libtorch*.so 2>/dev/null | awk '/not found/ {print $1}' | sort -u); do
  [ -n "${packages[$library]:-}" ] && wanted+=("${packages[$library]}")
done
[ ${#wanted[@]} -eq 0 ] || "$bin/pip" install --quiet --no-deps "${wanted[@]}"
"$bin/python" -c 'import torch; print("PyTorch", torch.__version__)'
