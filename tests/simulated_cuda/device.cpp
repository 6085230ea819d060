// A "cuda" device for a build of torch without CUDA: tests of code for GPUs on machines that have none.
//
// Every operation is the CPU's, on ordinary memory, so values are real. Dispatch and autocast are CUDA's; an operation
// refuses tensors of two devices; convolutions are in TF32 where torch.backends.cudnn allows it; copies between the
// devices are counted. There are no streams, graphs, Triton, torch.compile or second device.

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <set>

using at::Device;
using at::IntArrayRef;
using at::Tensor;

namespace {

const Device CPU(at::kCPU);
const Device GPU(at::kCUDA, 0);

std::atomic<int64_t> copies_to_device, copies_to_host;

// ---- what torch asks of a device

struct Memory final : at::Allocator {
  at::DataPtr allocate(size_t bytes) override {
    void* memory = bytes ? std::aligned_alloc(64, (bytes + 63) / 64 * 64) : nullptr;
    if (memory) std::memset(memory, 0xCB, bytes);  // numbers that nobody computes: reading them shows in the results
    return {memory, memory, &std::free, GPU};
  }
  at::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
Memory memory;
REGISTER_ALLOCATOR(at::kCUDA, &memory)

struct Guard final : c10::impl::NoOpDeviceGuardImpl<at::kCUDA> {
  Device exchangeDevice(Device) const override { return GPU; }
  Device getDevice() const override { return GPU; }
  c10::Stream getStream(Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, GPU); }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

struct CUDAHooks final : at::CUDAHooksInterface {  // torch looks for this name
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(at::DeviceIndex) const override { return true; }
  at::DeviceIndex deviceCount() const override { return 1; }
  at::DeviceIndex current_device() const override { return 0; }
  at::Allocator* getPinnedMemoryAllocator() const override { return at::GetAllocator(at::kCPU); }
};
using at::CUDAHooksRegistry, at::RegistererCUDAHooksRegistry;  // for the macro
REGISTER_CUDA_HOOKS(CUDAHooks)

// ---- any operation: by the CPU, on tensors that share the GPU's memory

// Return a tensor of `device` in the memory of `tensor`, which it keeps alive.
Tensor share_memory(const Tensor& tensor, Device device) {
  const at::Storage& owner = tensor.storage();
  auto release = [](void* storage) { delete static_cast<at::Storage*>(storage); };
  at::DataPtr pointer(owner.mutable_data(), new at::Storage(owner), release, device);
  at::Storage storage(at::Storage::use_byte_size_t(), owner.nbytes(), std::move(pointer), at::GetAllocator(device.type()),
                      /*resizable=*/true);
  auto key = device == GPU ? at::DispatchKey::CUDA : at::DispatchKey::CPU;
  Tensor shared = at::detail::make_tensor<at::TensorImpl>(std::move(storage), at::DispatchKeySet(key), tensor.dtype());
  at::TensorImpl* description = shared.unsafeGetTensorImpl();
  description->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) description->set_wrapped_number(true);
  return shared;
}

bool on_gpu(const Tensor& tensor) { return tensor.defined() && tensor.device() == GPU; }

bool same_memory(const Tensor& a, const Tensor& b) {
  return a.storage().data() && a.storage().data() == b.storage().data();
}

// The GPU's tensors among the arguments of one operation, and their stand-ins on the CPU.
class Arguments {
 public:
  Tensor stand_in(const Tensor& tensor) {
    if (!on_gpu(tensor)) {
      // numbers travel with a kernel; tensors of the CPU do not
      if (tensor.defined() && tensor.dim() > 0) from_cpu = tensor;
      return tensor;
    }
    for (auto& [original, replacement] : pairs)
      if (original.is_same(tensor)) return replacement;
    return pairs.emplace_back(tensor, share_memory(tensor, CPU)).second;
  }

  // Take over what the operation did to its arguments: `resize_`, `out=` and others change shapes and memory.
  void update() {
    for (auto& [original, replacement] : pairs) {
      bool moved = original.storage().data() != replacement.storage().data();
      if (moved || original.sizes() != replacement.sizes() || original.strides() != replacement.strides()) {
        at::TensorImpl* description = original.unsafeGetTensorImpl();
        if (moved) description->set_storage_keep_dtype(share_memory(replacement, GPU).storage());
        description->set_sizes_and_strides(replacement.sizes(), replacement.strides(), replacement.storage_offset());
      }
    }
  }

  // Return a result of the CPU as the GPU's: an argument, a view of an argument, or a new tensor.
  Tensor result(const Tensor& computed) {
    if (!computed.defined() || computed.device() != CPU) return computed;
    for (auto& [original, replacement] : pairs)
      if (replacement.is_same(computed)) return original;
    for (auto& [original, replacement] : pairs)
      if (same_memory(replacement, computed)) {
        Tensor view = at::detail::make_tensor<at::TensorImpl>(
            at::TensorImpl::VIEW, at::Storage(original.storage()), original.key_set(), computed.dtype());
        view.unsafeGetTensorImpl()->set_sizes_and_strides(computed.sizes(), computed.strides(), computed.storage_offset());
        return view;
      }
    return share_memory(computed, GPU);
  }

  bool any() const { return !pairs.empty(); }

  Tensor from_cpu;  // the last of the CPU's, if there are any

 private:
  std::vector<std::pair<Tensor, Tensor>> pairs;
};

// Round float32 to TF32's ten bits of mantissa, as a GPU's tensor cores do with the inputs of a convolution.
Tensor round_to_tf32(const Tensor& tensor) {
  return tensor.view(at::kInt).add(0x1000).bitwise_and(~0x1FFF).view(at::kFloat);
}

// Apply a function to every tensor, alone or in a list, of the `number` last values on the stack.
template <typename Function>
void replace_tensors(torch::jit::Stack* stack, size_t number, Function function) {
  for (auto value = stack->end() - number; value != stack->end(); ++value) {
    if (value->isTensor()) {
      *value = function(value->toTensor());
    } else if (value->isTensorList()) {
      c10::List<Tensor> tensors;
      for (const Tensor& tensor : value->toTensorVector()) tensors.push_back(function(tensor));
      *value = tensors;
    } else if (value->isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> tensors;
      for (const auto& tensor : value->toOptionalTensorVector())
        tensors.push_back(tensor ? std::optional(function(*tensor)) : std::nullopt);
      *value = tensors;
    }
  }
}

void compute(const c10::OperatorHandle& operation, c10::DispatchKeySet, torch::jit::Stack* stack) {
  // these copy indices of the CPU to the GPU
  static const std::set<std::string> indexing = {"aten::index", "aten::_unsafe_index", "aten::index_put_",
                                                 "aten::_index_put_impl_"};
  const auto& schema = operation.schema();
  const std::string& name = schema.name();
  Arguments arguments;
  replace_tensors(stack, schema.arguments().size(), [&](const Tensor& tensor) { return arguments.stand_in(tensor); });
  if (arguments.any() && arguments.from_cpu.defined()) {
    TORCH_CHECK(indexing.count(name), "Expected all tensors to be on the same device, but found at least two devices, ",
                "cuda:0 and cpu! (", name, ", on the CPU: ", arguments.from_cpu.sizes(), ")");
    copies_to_device++;
  }
  if (name.starts_with("aten::convolution") && at::globalContext().allowTF32CuDNN())
    replace_tensors(stack, schema.arguments().size(), [](const Tensor& tensor) {
      return tensor.defined() && tensor.scalar_type() == at::kFloat ? round_to_tf32(tensor) : tensor;
    });
  operation.callBoxed(stack);
  arguments.update();
  replace_tensors(stack, schema.returns().size(), [&](const Tensor& tensor) { return arguments.result(tensor); });
}

// ---- operations that make, move and reshape memory, and so cannot be left to the CPU

Tensor empty(IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<Device>,
             std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, at::DispatchKeySet(at::DispatchKey::CUDA),
                                   at::dtype_or_default(dtype), format);
}

Tensor empty_strided(IntArrayRef size, IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                     std::optional<Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory, at::DispatchKeySet(at::DispatchKey::CUDA),
                                           at::dtype_or_default(dtype));
}

Tensor& copy(Tensor& to, const Tensor& from, bool) {
  if (!on_gpu(from)) copies_to_device++;
  if (!on_gpu(to)) copies_to_host++;
  at::AutoDispatchBelowAutograd no_gradients;
  (on_gpu(to) ? share_memory(to, CPU) : to).copy_(on_gpu(from) ? share_memory(from, CPU) : from);
  return to;
}

at::Scalar item(const Tensor& number) {
  copies_to_host++;
  return at::_local_scalar_dense(share_memory(number, CPU));
}

Tensor& set_view(Tensor& tensor, at::Storage storage, int64_t offset, IntArrayRef size, IntArrayRef stride) {
  tensor.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(storage));
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, offset);
  return tensor;
}

Tensor& set_whole(Tensor& tensor, at::Storage storage) {
  int64_t size = storage.nbytes() / tensor.dtype().itemsize();
  return set_view(tensor, std::move(storage), 0, {size}, {1});
}

}  // namespace

TORCH_LIBRARY_IMPL(_, CUDA, library) { library.fallback(torch::CppFunction::makeFromBoxedFunction<&compute>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("copy_", TORCH_FN(copy));
  library.impl("_local_scalar_dense", TORCH_FN(item));
  library.impl("set_.source_Storage", TORCH_FN(set_whole));
  library.impl("set_.source_Storage_storage_offset", TORCH_FN(set_view));
  library.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  library.impl("view", TORCH_FN(at::native::view));
  library.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  // left to torch, a convolution would become cuDNN's, which this build does not have
  for (const char* name : {"convolution", "convolution_backward"})
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&compute>());
}

// ---- for ctypes

extern "C" int64_t simulated_copies_to_device() { return copies_to_device; }
extern "C" int64_t simulated_copies_to_host() { return copies_to_host; }
