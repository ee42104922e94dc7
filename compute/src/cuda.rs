//! NVIDIA GPUs by their driver, opened at run time: a machine without one starts and says so.
//!
//! ```text
//! probe ─▶ Card (context, stream, entry points) ─▶ attempts::CudaBackend: search, roots      original: v1_roots
//!                    ▲ launch::Call: one entry point, its arguments, and what each buffer must hold
//! ```
//!
//! This is the only file that names cudarc, and all of the CUDA backend's unsafe code is here: memory, copies, launches, waits. What is
//! launched and when is decided in the files beside it. Nothing here waits for a device without a limit: a kernel that does not
//! come back is [`DeviceFault::Hung`], and from then on the card is dead: its memory and context are left to the driver, because giving them
//! back would wait for that kernel.
#![allow(unsafe_code)]

mod attempts;
mod catalogue;
mod launch;
mod original;

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, result};
use cudarc::nvrtc::Ptx;
use tops_kernels::cuda::{Architecture, CLUSTER, Entry, Image, TENSOR_BOX, images_for};

pub use self::attempts::{CudaBackend, ProductsReport};
use self::launch::{Arg, Call};
use crate::backend::{Device, DeviceFault, DeviceKind, Probe, Refusal};
use crate::waited::Waited;

/// How long a wait may last: far above any launch, which is made for milliseconds, and above the longest single attempt on a slow card.
const HUNG_AFTER: Duration = Duration::from_secs(20);
/// How long a wait sleeps between looks, and for how long it looks without sleeping: short waits are audits, which somebody waits for.
const NAP: Duration = Duration::from_micros(100);
const AWAKE: Duration = Duration::from_micros(200);
/// What a wait counts at most from one look to the next; a longer gap is a pause of this process.
const GAP: Duration = Duration::from_secs(1);

/// Looks for CUDA devices: all of them, or those with the numbers given. Each that is found has passed its start-up self-check.
pub fn probe(wanted: Option<&[u32]>) -> Probe {
    let mut probe = Probe::default();
    let none = |probe: &mut Probe, index, reason: String| probe.pass(DeviceKind::Cuda, index, Refusal::unfit(None, reason));
    // SAFETY: opens the driver's library as the dynamic linker does; its initialisers are the vendor's.
    if !unsafe { sys::is_culib_present() } {
        none(&mut probe, None, "no NVIDIA driver: libcuda is not installed".into());
        return probe;
    }
    let count = match result::init().and_then(|()| result::device::get_count()) {
        Ok(count) => u32::try_from(count).unwrap_or(0),
        Err(error) => {
            none(&mut probe, None, format!("the NVIDIA driver does not start: {}", words(error)));
            return probe;
        }
    };
    if count == 0 {
        none(&mut probe, None, "the NVIDIA driver sees no GPU".into());
    }
    for index in wanted.into_iter().flatten().filter(|&&index| index >= count) {
        none(&mut probe, Some(*index), format!("the NVIDIA driver sees {count} GPUs"));
    }
    for index in (0..count).filter(|index| wanted.is_none_or(|wanted| wanted.contains(index))) {
        probe.open(DeviceKind::Cuda, index, None, || {
            let card = Card::open(index)?;
            let name = card.device.name.clone();
            let backend = CudaBackend::new(card);
            backend.self_check().map_err(|fault| Refusal::broken(Some(name), format!("its self-check failed: {fault}")))?;
            Ok(Arc::new(backend))
        });
    }
    probe
}

/// Opens one device with the code of one architecture: how tests and measurements reach the path that a device would not choose.
pub fn open_with(index: u32, architecture: Architecture) -> Result<CudaBackend, DeviceFault> {
    // SAFETY: as in `probe`.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceFault::Unsupported { what: "CUDA: libcuda is not installed".into() });
    }
    result::init().map_err(|error| fault("cuInit", error))?;
    let card = Card::open_images(index, |images| images.iter().filter(|image| image.architecture == architecture).copied().collect())
        .map_err(|refusal| DeviceFault::Unsupported { what: refusal.reason })?;
    Ok(CudaBackend::new(card))
}

/// What outlives every allocation: the context, and whether its device still answers.
struct Shared {
    context: ManuallyDrop<Arc<CudaContext>>,
    dead: AtomicBool,
}

impl Shared {
    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.is_dead() {
            // SAFETY: dropped once, here; nothing uses it afterwards.
            unsafe { ManuallyDrop::drop(&mut self.context) };
        }
    }
}

/// One GPU: its context, its streams and its entry points.
struct Card {
    device: Device,
    architecture: Architecture,
    /// Blocks of a whole wave on Sm90a, in clusters; multiprocessors elsewhere.
    wave: u32,
    /// Bytes that scratch memory may take.
    scratch_limit: usize,
    /// Everything is queued here, in order.
    stream: ManuallyDrop<Arc<CudaStream>>,
    /// For copies that wait for a kernel while the first stream goes on.
    copies: ManuallyDrop<Arc<CudaStream>>,
    /// For reading what is finished: nothing queued on it ever waits for a kernel.
    side: ManuallyDrop<Arc<CudaStream>>,
    functions: Vec<(Entry, CudaFunction)>,
    /// Whether `ProductMmaWide` fits.
    wide: bool,
    shared: Arc<Shared>,
}

/// The most that scratch memory may take, whatever the card has: more buys nothing.
const SCRATCH_LIMIT: usize = 2 << 30;

impl Card {
    fn open(index: u32) -> Result<Self, Refusal> {
        Self::open_images(index, <[Image]>::to_vec)
    }

    fn open_images(index: u32, choose: impl Fn(&[Image]) -> Vec<Image>) -> Result<Self, Refusal> {
        let ordinal = usize::try_from(index).unwrap_or(usize::MAX);
        let context = CudaContext::new(ordinal).map_err(|error| Refusal::broken(None, format!("cannot be opened: {}", words(error))))?;
        let name = context.name().unwrap_or_else(|_| "an NVIDIA GPU".into());
        let fail = |reason: String| Refusal::broken(Some(name.clone()), reason);
        let driver = |call: &str, error| fail(format!("{call} failed: {}", words(error)));

        let (major, minor) = context.compute_capability().map_err(|error| driver("cuDeviceGetAttribute", error))?;
        let images = choose(images_for(major, minor));
        if images.is_empty() {
            let reason = format!("compute capability {major}.{minor} is not supported (6.1 and newer are)");
            return Err(Refusal::unfit(Some(name), reason));
        }
        let attribute = |which| context.attribute(which).ok().and_then(|value| u32::try_from(value).ok()).unwrap_or(0);
        let units = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).max(1);
        let shared_memory = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
        let memory = context.total_mem().unwrap_or(0);
        let free = context.mem_get_info().map_or(memory, |(free, _)| free);
        let stream = context.new_stream().map_err(|error| driver("cuStreamCreate", error))?;
        let copies = context.new_stream().map_err(|error| driver("cuStreamCreate", error))?;
        let side = context.new_stream().map_err(|error| driver("cuStreamCreate", error))?;

        let mut refused = Vec::new();
        let loaded = images.into_iter().find_map(|image| match load(&context, image, shared_memory) {
            Ok(functions) => Some((image, functions)),
            Err(reason) => {
                refused.push(format!("{}: {reason}", image.architecture.name()));
                None
            }
        });
        let Some((image, functions)) = loaded else { return Err(fail(format!("no kernel image loads ({})", refused.join("; ")))) };
        if let Some(reason) = refused.first() {
            tracing::warn!(device = index, chosen = image.architecture.name(), %reason, "a faster kernel image was passed over");
        }

        let wide = functions.iter().any(|(entry, _)| *entry == Entry::ProductMmaWide);
        let wave = match functions.iter().find(|(entry, _)| *entry == Entry::ProductHash) {
            Some((entry, function)) => resident_clusters(function, *entry, units, &stream) * CLUSTER,
            None => units,
        };
        let device = Device {
            kind: DeviceKind::Cuda,
            index,
            name: name.clone(),
            driver: driver_version(),
            path: image.architecture.name().into(),
            code_digest: image.digest[..16].into(),
            memory_bytes: u64::try_from(memory).ok().filter(|&bytes| bytes > 0),
            units,
            compute_capability: Some(format!("{major}.{minor}")),
            pci_address: pci_address(&context),
            peak_int8_tops: catalogue::peak_int8_tops(&name),
        };
        Ok(Self {
            device,
            architecture: image.architecture,
            wave,
            scratch_limit: (free / 3).min(SCRATCH_LIMIT),
            stream: ManuallyDrop::new(stream),
            copies: ManuallyDrop::new(copies),
            side: ManuallyDrop::new(side),
            functions,
            wide,
            shared: Arc::new(Shared { context: ManuallyDrop::new(context), dead: AtomicBool::new(false) }),
        })
    }

    /// Every public operation begins with it: the context belongs to the calling thread, and the device still answers.
    fn enter(&self) -> Result<(), DeviceFault> {
        if self.shared.is_dead() {
            return Err(DeviceFault::Lost { detail: "it failed before and was taken out".into() });
        }
        self.check("cuCtxSetCurrent", self.shared.context.bind_to_thread())
    }

    /// Turns a driver's error into a fault; the errors that break the context make the card dead.
    fn check<T>(&self, call: &str, result: Result<T, DriverError>) -> Result<T, DeviceFault> {
        result.map_err(|error| {
            let fault = fault(call, error);
            if matches!(fault, DeviceFault::Lost { .. }) {
                self.shared.dead.store(true, Ordering::Relaxed);
            }
            fault
        })
    }

    /// Device memory, not initialised.
    fn allocate(&self, bytes: usize) -> Result<Buffer, DeviceFault> {
        // SAFETY: the context is current (`enter`); the memory is given back once, by Buffer's drop.
        let address = self.check("cuMemAlloc", unsafe { result::malloc_sync(bytes.max(1)) }).map_err(|fault| match fault {
            DeviceFault::OutOfMemory { detail } => DeviceFault::OutOfMemory { detail: format!("{} MiB: {detail}", bytes >> 20) },
            other => other,
        })?;
        Ok(Buffer { address, bytes, shared: Arc::clone(&self.shared) })
    }

    /// Page-locked host memory of zeros, for copies that overlap kernels.
    fn allocate_host(&self, bytes: usize) -> Result<HostBuffer, DeviceFault> {
        // SAFETY: as in `allocate`; the memory is at least `bytes` long and aligned to a page.
        let address = self.check("cuMemHostAlloc", unsafe { result::malloc_host(bytes.max(1), 0) })?.cast::<u8>();
        // SAFETY: freshly allocated, `bytes` long, used by nobody else.
        unsafe { address.write_bytes(0, bytes) };
        Ok(HostBuffer { address, bytes, shared: Arc::clone(&self.shared) })
    }

    /// Copies to the device in the order of the stream; `from` may be reused when it returns.
    fn upload(&self, from: &[u8], to: &Buffer) -> Result<(), DeviceFault> {
        assert!(from.len() <= to.bytes, "an upload of {} bytes into {}", from.len(), to.bytes);
        // SAFETY: both ends are long enough. `from` is pageable, so the driver has taken it when the call returns.
        let copied = unsafe { result::memcpy_htod_async(to.address, from, self.stream.cu_stream()) };
        self.check("cuMemcpyHtoDAsync", copied)
    }

    /// Queues a copy of the buffer's beginning to page-locked memory for when the stream has come to `after`, beside what the stream then
    /// does. Read `to` after waiting for the mark that this returns; until then nothing may write `from`.
    fn queue_download(&self, after: &Mark, from: &Buffer, to: &mut HostBuffer) -> Result<Mark, DeviceFault> {
        let bytes = from.bytes.min(to.bytes);
        let none = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: stream and event are alive.
        self.check("cuStreamWaitEvent", unsafe { result::stream::wait_event(self.copies.cu_stream(), after.event, none) })?;
        // SAFETY: both ends hold `bytes`. The host end is page-locked and stays allocated: dropping it waits for the device, unless that is dead.
        let copied =
            unsafe { sys::cuMemcpyDtoHAsync_v2(to.address.cast::<c_void>(), from.address, bytes, self.copies.cu_stream()).result() };
        self.check("cuMemcpyDtoHAsync", copied)?;
        self.mark_on(&self.copies)
    }

    /// Copies the buffer's beginning from the device now, beside what the stream does. Only for buffers that nothing queued writes.
    fn download(&self, from: &Buffer, to: &mut [u8]) -> Result<(), DeviceFault> {
        assert!(to.len() <= from.bytes, "a download of {} bytes from {}", to.len(), from.bytes);
        // SAFETY: both ends are long enough; `to` is pageable and stays borrowed until the stream is waited for below.
        let copied = unsafe { result::memcpy_dtoh_async(to, from.address, self.side.cu_stream()) };
        self.check("cuMemcpyDtoHAsync", copied)?;
        self.check("cuStreamSynchronize", self.side.synchronize())
    }

    /// Sets the first `words` words of a buffer to zero, in the order of the stream.
    fn clear(&self, buffer: &Buffer, words: usize) -> Result<(), DeviceFault> {
        assert!(words * 4 <= buffer.bytes, "clearing {words} words of {} bytes", buffer.bytes);
        // SAFETY: the buffer holds that many words, and device allocations are aligned.
        let done = unsafe { sys::cuMemsetD32Async(buffer.address, 0, words, self.stream.cu_stream()).result() };
        self.check("cuMemsetD32Async", done)
    }

    /// Queues a kernel.
    fn launch(&self, call: &Call<'_>) -> Result<(), DeviceFault> {
        for (buffer, bytes) in &call.needs {
            assert!(buffer.bytes >= *bytes, "{} needs {bytes} bytes in a buffer of {}", call.entry.name(), buffer.bytes);
        }
        let Some((entry, function)) = self.functions.iter().find(|(entry, _)| *entry == call.entry) else {
            return Err(DeviceFault::Unsupported { what: format!("{} on {}", call.entry.name(), self.architecture.name()) });
        };
        let maps = call
            .args
            .iter()
            .map(|arg| match arg {
                Arg::Map { buffer, columns, rows } => self.tensor_map(buffer, *columns, *rows).map(Some),
                _ => Ok(None),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<u64> = call.args.iter().map(|arg| if let Arg::Buffer(buffer) = arg { buffer.address } else { 0 }).collect();
        let mut params: Vec<*mut c_void> = Vec::with_capacity(call.args.len());
        for (at, arg) in call.args.iter().enumerate() {
            let param: *const c_void = match (arg, &maps[at]) {
                (Arg::Word(word), _) => std::ptr::from_ref(word).cast(),
                (Arg::Target(words), _) => words.as_ptr().cast(),
                (Arg::Map { .. }, Some(map)) => std::ptr::from_ref(map).cast(),
                (Arg::Buffer(_) | Arg::Map { .. }, _) => std::ptr::from_ref(&addresses[at]).cast(),
            };
            params.push(param.cast_mut());
        }
        // SAFETY: `launch` builds each call from the entry point's documented parameters; every buffer was found large enough above; the
        // driver copies the parameters before it returns. Buffers outlive the kernel: their drop waits for the device.
        let launched = unsafe {
            result::launch_kernel(
                function.cu_function(),
                (call.grid, 1, 1),
                (entry.threads(), 1, 1),
                entry.shared_bytes(),
                self.stream.cu_stream(),
                &mut params,
            )
        };
        self.check(call.entry.name(), launched)
    }

    /// A map of a row-major byte matrix, in boxes of [`TENSOR_BOX`] with 128-byte swizzle.
    fn tensor_map(&self, buffer: &Buffer, columns: usize, rows: usize) -> Result<sys::CUtensorMap, DeviceFault> {
        assert!(columns * rows <= buffer.bytes, "a map of {columns}×{rows} over {} bytes", buffer.bytes);
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        let (dims, strides, steps) = ([columns as u64, rows as u64], [columns as u64], [1_u32, 1]);
        // SAFETY: every array has the length that a rank of 2 needs; the buffer covers the matrix and outlives the kernel that reads the map.
        let encoded = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
                2,
                buffer.address as *mut c_void,
                dims.as_ptr(),
                strides.as_ptr(),
                TENSOR_BOX.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
            .result()
        };
        self.check("cuTensorMapEncodeTiled", encoded)?;
        Ok(map)
    }

    /// A point in the stream that can be waited for and timed.
    fn mark(&self) -> Result<Mark, DeviceFault> {
        self.mark_on(&self.stream)
    }

    fn mark_on(&self, stream: &CudaStream) -> Result<Mark, DeviceFault> {
        let event = self.check("cuEventCreate", result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT))?;
        let mark = Mark { event, shared: Arc::clone(&self.shared) };
        // SAFETY: both were made in this context and are alive.
        self.check("cuEventRecord", unsafe { result::event::record(event, stream.cu_stream()) })?;
        Ok(mark)
    }

    /// Waits until the device has come to a mark; after [`HUNG_AFTER`] the card is dead.
    fn wait(&self, mark: &Mark) -> Result<(), DeviceFault> {
        let mut since = Waited::new(Instant::now(), GAP);
        loop {
            // The clock is read before the device is asked, so that a card is asked once more after the limit before it is given up.
            let waited = since.look(Instant::now());
            // SAFETY: the event is alive and recorded.
            match unsafe { result::event::query(mark.event) } {
                Ok(()) => return Ok(()),
                Err(DriverError(CUresult::CUDA_ERROR_NOT_READY)) => {}
                Err(error) => return self.check("a kernel", Err(error)),
            }
            if waited > HUNG_AFTER {
                self.shared.dead.store(true, Ordering::Relaxed);
                return Err(DeviceFault::Hung { waited_secs: HUNG_AFTER.as_secs() });
            }
            if waited < AWAKE { std::hint::spin_loop() } else { std::thread::sleep(NAP) }
        }
    }

    /// The device's time between two marks that it has come to.
    fn between(&self, from: &Mark, to: &Mark) -> Result<Duration, DeviceFault> {
        // SAFETY: both events are alive and completed.
        let ms = self.check("cuEventElapsedTime", unsafe { result::event::elapsed(from.event, to.event) })?;
        Ok(Duration::from_secs_f64(f64::from(ms.max(0.0)) / 1e3))
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        if self.shared.is_dead() {
            // The functions hold the context; a dead one is left to the driver.
            std::mem::take(&mut self.functions).into_iter().for_each(std::mem::forget);
        } else {
            // SAFETY: dropped once, here.
            unsafe {
                ManuallyDrop::drop(&mut self.stream);
                ManuallyDrop::drop(&mut self.copies);
                ManuallyDrop::drop(&mut self.side);
            }
        }
    }
}

/// Device memory.
struct Buffer {
    address: sys::CUdeviceptr,
    bytes: usize,
    shared: Arc<Shared>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.shared.is_dead() && self.shared.context.bind_to_thread().is_ok() {
            // SAFETY: allocated by `Card::allocate`, freed once. The driver waits for kernels that still use it.
            if let Err(error) = unsafe { result::free_sync(self.address) } {
                tracing::debug!(error = %words(error), "freeing device memory failed");
            }
        }
    }
}

/// Page-locked host memory.
struct HostBuffer {
    address: *mut u8,
    bytes: usize,
    shared: Arc<Shared>,
}

// SAFETY: it owns its memory, as a Vec does.
unsafe impl Send for HostBuffer {}

impl HostBuffer {
    fn words(&self) -> impl Iterator<Item = u32> + '_ {
        // SAFETY: allocated with this length and initialised; the device writes it only between `queue_download` and the wait that follows.
        let bytes = unsafe { std::slice::from_raw_parts(self.address, self.bytes) };
        bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        if !self.shared.is_dead() && self.shared.context.synchronize().is_ok() {
            // SAFETY: allocated by `Card::allocate_host`, freed once, and nothing queued writes it any more.
            if let Err(error) = unsafe { result::free_host(self.address.cast()) } {
                tracing::debug!(error = %words(error), "freeing page-locked memory failed");
            }
        }
    }
}

/// A point in the stream.
struct Mark {
    event: sys::CUevent,
    shared: Arc<Shared>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        if !self.shared.is_dead() {
            // SAFETY: created by `Card::mark`, destroyed once; the driver keeps it until it completes.
            let _ = unsafe { result::event::destroy(self.event) };
        }
    }
}

// SAFETY: an event may be used from any thread that has made its context current.
unsafe impl Send for Mark {}

/// Verifies an image and loads its entry points, with the shared memory that each needs allowed.
fn load(context: &Arc<CudaContext>, image: Image, shared_memory: u32) -> Result<Vec<(Entry, CudaFunction)>, String> {
    if blake3::hash(image.bytes).to_hex().as_str() != image.digest {
        return Err("the embedded image does not hash to its digest: this program is damaged".into());
    }
    let code = match image.architecture {
        Architecture::Sm90a => Ptx::from_binary(image.bytes.to_vec()),
        Architecture::Mma | Architecture::Dp4a => {
            Ptx::from_src(std::str::from_utf8(image.bytes).map_err(|error| format!("not PTX text: {error}"))?)
        }
    };
    let module: Arc<CudaModule> = context.load_module(code).map_err(|error| format!("the driver refuses it: {}", words(error)))?;
    let mut functions = Vec::new();
    for &entry in Entry::all(image.architecture) {
        if entry.shared_bytes() > shared_memory {
            if entry == Entry::ProductMmaWide {
                continue;
            }
            return Err(format!(
                "{} needs {} bytes of shared memory a block, and there are {shared_memory}",
                entry.name(),
                entry.shared_bytes()
            ));
        }
        let function = module.load_function(entry.name()).map_err(|error| format!("{}: {}", entry.name(), words(error)))?;
        if let bytes @ 1.. = i32::try_from(entry.shared_bytes()).unwrap_or(0) {
            function
                .set_attribute(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes)
                .map_err(|error| format!("{}: {}", entry.name(), words(error)))?;
        }
        functions.push((entry, function));
    }
    Ok(functions)
}

/// How many clusters of a product run at once. Some parts have processors that no cluster can use.
fn resident_clusters(function: &CudaFunction, entry: Entry, units: u32, stream: &CudaStream) -> u32 {
    let config = cudarc::driver::LaunchConfig {
        grid_dim: (units / CLUSTER * CLUSTER, 1, 1),
        block_dim: (entry.threads(), 1, 1),
        shared_mem_bytes: entry.shared_bytes(),
    };
    match function.occupancy_max_active_clusters(config, stream) {
        Ok(clusters @ 1..) => clusters,
        _ => (units / CLUSTER).max(1),
    }
}

/// `580.159.04`; where the system does not tell, the CUDA version that the driver speaks.
fn driver_version() -> String {
    let told = std::fs::read_to_string("/proc/driver/nvidia/version").ok().and_then(|text| {
        let mut words = text.lines().next()?.split_whitespace();
        words.find(|word| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.')).map(str::to_owned)
    });
    told.unwrap_or_else(|| {
        let mut version = 0;
        // SAFETY: writes one integer.
        match unsafe { sys::cuDriverGetVersion(&mut version).result() } {
            Ok(()) => format!("CUDA {}.{}", version / 1000, version % 1000 / 10),
            Err(_) => "unknown".into(),
        }
    })
}

fn pci_address(context: &CudaContext) -> Option<String> {
    let mut text = [0_u8; 32];
    // SAFETY: the driver writes at most 32 bytes, a NUL included.
    unsafe { sys::cuDeviceGetPCIBusId(text.as_mut_ptr().cast(), 32, context.cu_device()).result() }.ok()?;
    let end = text.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&text[..end]).ok().map(str::to_ascii_lowercase)
}

/// The driver's words for an error.
fn words(error: DriverError) -> String {
    let text = |words: Result<&std::ffi::CStr, DriverError>| words.ok().map(|words| words.to_string_lossy().into_owned());
    match (text(error.error_string()), text(error.error_name())) {
        (Some(string), Some(name)) => format!("{string} ({name})"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => format!("error {}", error.0 as u32),
    }
}

fn fault(call: &str, error: DriverError) -> DeviceFault {
    use CUresult as R;
    let detail = words(error);
    match error.0 {
        R::CUDA_ERROR_OUT_OF_MEMORY => DeviceFault::OutOfMemory { detail },
        R::CUDA_ERROR_DEINITIALIZED
        | R::CUDA_ERROR_NO_DEVICE
        | R::CUDA_ERROR_DEVICE_UNAVAILABLE
        | R::CUDA_ERROR_ECC_UNCORRECTABLE
        | R::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | R::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | R::CUDA_ERROR_INVALID_CONTEXT
        | R::CUDA_ERROR_ILLEGAL_ADDRESS
        | R::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | R::CUDA_ERROR_MISALIGNED_ADDRESS
        | R::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | R::CUDA_ERROR_INVALID_PC
        | R::CUDA_ERROR_HARDWARE_STACK_ERROR
        | R::CUDA_ERROR_LAUNCH_TIMEOUT
        | R::CUDA_ERROR_LAUNCH_FAILED
        | R::CUDA_ERROR_SYSTEM_NOT_READY => DeviceFault::Lost { detail: format!("{call}: {detail}") },
        _ => DeviceFault::Driver { call: call.into(), detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_images_hash_to_their_digests() {
        for image in images_for(9, 0) {
            assert_eq!(blake3::hash(image.bytes).to_hex().as_str(), image.digest, "{}", image.architecture.name());
        }
    }

    /// Holds on any machine: without a driver there is a reason, with one every device is found or passed over.
    #[test]
    fn a_probe_always_explains_itself() {
        let probe = probe(None);
        assert!(!probe.found.is_empty() || !probe.passed_over.is_empty());
        assert!(probe.passed_over.iter().all(|passed| passed.kind == DeviceKind::Cuda && !passed.reason.is_empty()));
    }
}
