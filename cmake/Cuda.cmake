# The CUDA toolkit: PITCREW_CUDA_ROOT, else CUDA_HOME, /usr/local/cuda, or what scripts/setup --cuda put into the cache.
# No CUDA language of CMake's: a command per source keeps what ptxas says about registers and spills beside the object.
option(PITCREW_CUDA "Build libpitcrew_cuda.so, the trainer's GPU side" OFF)
if(NOT PITCREW_CUDA)
  return()
endif()
set(PITCREW_CUDA_ARCHITECTURES "90a" CACHE STRING "Of the GPUs that kernels are compiled for: 80;90a;100")
file(STRINGS ${PROJECT_SOURCE_DIR}/scripts/versions cuda_line REGEX "^CUDA=")
string(REPLACE "CUDA=" "" cuda_version "${cuda_line}")
if(DEFINED ENV{XDG_CACHE_HOME})
  set(cuda_cache $ENV{XDG_CACHE_HOME}/pitcrew/cuda/${cuda_version})
else()
  set(cuda_cache $ENV{HOME}/.cache/pitcrew/cuda/${cuda_version})
endif()
set(PITCREW_CUDA_ROOT "" CACHE PATH "The CUDA toolkit")
find_path(PITCREW_CUDA_HOME bin/nvcc HINTS ${PITCREW_CUDA_ROOT} $ENV{CUDA_HOME} /usr/local/cuda ${cuda_cache}/nvidia/cu13 NO_DEFAULT_PATH)
if(NOT PITCREW_CUDA_HOME)
  message(FATAL_ERROR "PITCREW_CUDA is on, but there is no nvcc in CUDA_HOME, /usr/local/cuda or ${cuda_cache}; "
    "scripts/setup --cuda installs a toolkit")
endif()
find_library(PITCREW_CUDART cudart_static HINTS ${PITCREW_CUDA_HOME}/lib ${PITCREW_CUDA_HOME}/lib64 NO_DEFAULT_PATH REQUIRED)
find_file(PITCREW_CUBLASLT NAMES libcublasLt.so.13 libcublasLt.so.12 libcublasLt.so
  HINTS ${PITCREW_CUDA_HOME}/lib ${PITCREW_CUDA_HOME}/lib64 NO_DEFAULT_PATH REQUIRED)
message(STATUS "CUDA toolkit: ${PITCREW_CUDA_HOME}, for ${PITCREW_CUDA_ARCHITECTURES}")

add_library(pitcrew_cuda_toolkit INTERFACE)
target_include_directories(pitcrew_cuda_toolkit SYSTEM INTERFACE ${PITCREW_CUDA_HOME}/include)
target_link_libraries(pitcrew_cuda_toolkit INTERFACE ${PITCREW_CUDART} ${PITCREW_CUBLASLT} Threads::Threads ${CMAKE_DL_LIBS} rt)

# cuDNN's attention needs its headers alone: the library is loaded at run time. Without them libpitcrew_cuda.so has its own
# kernels for attention, and says so where cuDNN is asked for.
file(STRINGS ${PROJECT_SOURCE_DIR}/scripts/versions cudnn_line REGEX "^CUDNN=")
string(REPLACE "CUDNN=" "" cudnn_version "${cudnn_line}")
string(REGEX REPLACE "/cuda/[^/]*$" "/cudnn/${cudnn_version}" cudnn_cache "${cuda_cache}")
find_path(PITCREW_CUDNN_FRONTEND cudnn_frontend.h HINTS $ENV{CUDNN_FRONTEND_PATH} ${cudnn_cache}/include NO_DEFAULT_PATH)
find_path(PITCREW_CUDNN_INCLUDE cudnn.h HINTS $ENV{CUDNN_HOME}/include ${cudnn_cache}/nvidia/cudnn/include)
find_path(PITCREW_NVRTC_INCLUDE nvrtc.h HINTS ${PITCREW_CUDA_HOME}/include ${cudnn_cache}/nvidia/cu13/include NO_DEFAULT_PATH)
if(PITCREW_CUDNN_FRONTEND AND PITCREW_CUDNN_INCLUDE AND PITCREW_NVRTC_INCLUDE)
  set(PITCREW_CUDNN_HEADERS ${PITCREW_CUDNN_FRONTEND} ${PITCREW_CUDNN_INCLUDE} ${PITCREW_NVRTC_INCLUDE})
  message(STATUS "cuDNN's headers: ${PITCREW_CUDNN_INCLUDE}")
else()
  set(PITCREW_CUDNN_HEADERS)
  message(STATUS "cuDNN's headers are not here (scripts/setup --cuda installs them): attention by own kernels alone")
endif()

# pitcrew_cuda_objects(OUTPUT source.cu…): compiles each for every architecture; OUTPUT gets the objects. Beside each
# object lies <name>.ptxas.txt.
function(pitcrew_cuda_objects OUTPUT)
  set(targets)
  foreach(architecture IN LISTS PITCREW_CUDA_ARCHITECTURES)
    list(APPEND targets -gencode arch=compute_${architecture},code=sm_${architecture})
  endforeach()
  set(objects)
  foreach(source IN LISTS ARGN)
    get_filename_component(name ${source} NAME_WE)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.cu.o)
    add_custom_command(OUTPUT ${object} ${CMAKE_CURRENT_BINARY_DIR}/${name}.ptxas.txt
      COMMAND ${CMAKE_COMMAND} -E env ${PROJECT_SOURCE_DIR}/cmake/nvcc.sh ${CMAKE_CURRENT_BINARY_DIR}/${name}.ptxas.txt
        ${CMAKE_CXX_COMPILER_LAUNCHER} ${PITCREW_CUDA_HOME}/bin/nvcc -ccbin ${CMAKE_CXX_COMPILER} -std=c++20 -O3 ${targets} -Xptxas -v
        -Xcompiler=-fPIC,-Wall,-Wextra -I${PROJECT_SOURCE_DIR} -MD -MF ${object}.d -c ${source} -o ${object}
      DEPENDS ${source} ${PROJECT_SOURCE_DIR}/cmake/nvcc.sh DEPFILE ${object}.d COMMENT "Building CUDA object ${name}.cu.o" VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  set(${OUTPUT} ${objects} PARENT_SCOPE)
endfunction()
