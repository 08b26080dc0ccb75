#!/usr/bin/env bash
# What the interop tests need, made once (about 15 minutes and 3 GB; needs CMake, a C++ compiler and
# a package index): real llama.cpp with its converters, and PEFT on a CPU build of torch.
#
#   tests/interop/setup.sh [FOLDER]      default: .interop at the top of the clone
#   python -m pytest -m slow tests/interop
#
# On a slow machine the models are so small that a quick build serves as well:
#   CMAKE_ARGS="-DCMAKE_CXX_FLAGS_RELEASE=-O1" tests/interop/setup.sh
# Tests look in $ORPO_MLX_INTEROP, else in .interop, and are skipped when nothing is there.
set -euo pipefail

here="$(cd "$(dirname "$0")/../.." && pwd)"
home="${1:-$here/.interop}"
python="${PYTHON:-python3}"
llama_version=0.3.36
mkdir -p "$home/sdist"
cd "$home"

# llama.cpp: the sdist holds its whole source, the converters among it.
"$python" -m venv llama
llama/bin/python -m pip install --quiet scikit-build-core flit-core cmake ninja
llama/bin/python -m pip download --quiet --no-deps --no-build-isolation \
    --no-binary llama-cpp-python --dest sdist "llama-cpp-python==$llama_version"
tar -xzf "sdist/llama_cpp_python-$llama_version.tar.gz"
rm -rf source && mv "llama_cpp_python-$llama_version/vendor/llama.cpp" source
CMAKE_ARGS="-DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF -DLLAMA_CURL=OFF ${CMAKE_ARGS:-}" \
    PATH="$home/llama/bin:$PATH" \
    llama/bin/python -m pip install --quiet --no-build-isolation --no-binary llama-cpp-python \
    "sdist/llama_cpp_python-$llama_version.tar.gz"

# PEFT, and the converters' own needs. On Linux a CPU build of torch is a fraction of the usual one:
# name an index that has it in PIP_EXTRA_INDEX_URL.
"$python" -m venv torch
torch/bin/python -m pip install --quiet torch==2.13.0
torch/bin/python -m pip install --quiet \
    transformers==5.23.0 peft==0.21.2 "numpy~=2.2.6" "sentencepiece<0.3" "protobuf<5" pyyaml
# Transformers 4 beside it, for PEFT on mixtures of experts; its huggingface-hub needs requests.
torch/bin/python -m pip install --quiet requests
torch/bin/python -m pip install --quiet --target transformers4 --no-deps \
    transformers==4.57.6 "huggingface-hub<1" "tokenizers<0.23"

llama/bin/python -c "import llama_cpp; print('llama-cpp-python', llama_cpp.__version__)"
torch/bin/python -c "import torch, peft, transformers as t
print('torch', torch.__version__, 'peft', peft.__version__, 'transformers', t.__version__)"
PYTHONPATH=transformers4 torch/bin/python -c "import transformers as t
from transformers import AutoModelForCausalLM; print('and transformers', t.__version__)"
