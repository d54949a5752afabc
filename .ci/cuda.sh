# Sourced by .ci/kernels and .ci/nvrtc: finds NVIDIA's programs in CUDA_HOME, CUDA_PATH and PATH, and installs from PyPI, into
# a virtual environment in target/, what is missing.

# The version of kernels/RESOURCES.md.
version=13.5.37
venv=target/nvcc-venv

# find_folder NAME...: the first folder that has all of these programs.
find_folder() {
  local folder name
  while IFS= read -r -d : folder; do
    for name in "$@"; do
      [ -n "$folder" ] && [ -x "$folder/$name" ] || continue 2
    done
    echo "$folder"
    return
  done <<<"${CUDA_HOME:+$CUDA_HOME/bin}:${CUDA_PATH:+$CUDA_PATH/bin}:$PATH:"
}

# install NAME PACKAGE...: the folder of program NAME from these packages. Costs a second when they are there.
install() {
  local name=$1
  shift
  [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "${@/%/==$version}" >&2
  dirname "$(find "$PWD/$venv" -name "$name" -path '*/bin/*' -not -type d | head -n 1)"
}

# The folder of nvcc.
nvcc_folder() {
  local folder
  folder=$(find_folder nvcc)
  echo "${folder:-$(install nvcc nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm nvidia-cuda-runtime)}"
}

# The folder of cuobjdump, and of nvdisasm, which it calls.
cuobjdump_folder() {
  local folder
  folder=$(find_folder cuobjdump nvdisasm)
  echo "${folder:-$(install cuobjdump nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm)}"
}
