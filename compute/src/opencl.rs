//! Any vendor's devices by their OpenCL driver.
//!
//! ```text
//! probe ─▶ Card (context, queues, kernels built here) ─▶ attempts::OpenClBackend: search, roots      original: v1_roots
//!                    ▲ launch::Call: one kernel, its arguments, and what each buffer must hold
//! ```
//!
//! This is the only file that names ocl, and all of the OpenCL backend's unsafe code is here: memory, copies, launches, questions. What is
//! launched and when is decided in the files beside it. A card builds the one portable source for the fastest product that it has and that
//! gives right answers. Nothing here waits for a device without a limit: a kernel that does not come back is [`DeviceFault::Hung`], and
//! from then on the card is dead: what it holds is left to the driver, because giving it back could wait for that kernel.
#![allow(unsafe_code)]

mod attempts;
mod launch;
mod original;

use std::ffi::{CString, c_void};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ocl::core::{self as cl, ArgVal, ClDeviceIdPtr, DeviceId, Event, Mem, ProfilingInfo, Status};
use ocl::ffi;
use tops_kernels::opencl::{Product, SOURCE};

pub use self::attempts::OpenClBackend;
use self::launch::{Arg, Call, Kernel};
use crate::backend::{Device, DeviceFault, DeviceKind, Probe, Refusal};
use crate::waited::Waited;

/// How long a wait may last: far above any launch, which is made for milliseconds, and above the longest single launch on a slow device.
const HUNG_AFTER: Duration = Duration::from_secs(60);
/// How long a wait sleeps between looks, and for how long it looks without sleeping: short waits are audits, which somebody waits for.
const NAP: Duration = Duration::from_micros(100);
const AWAKE: Duration = Duration::from_micros(200);
/// What a wait counts at most from one look to the next; a longer gap is a pause of this process.
const GAP: Duration = Duration::from_secs(1);
/// The most that scratch memory may take, whatever the device has: more buys nothing.
const SCRATCH_LIMIT: u64 = 1 << 30;
/// How many characters of a compiler's log a fault quotes.
const LOG_LIMIT: usize = 400;

/// Looks for OpenCL devices: all of them, or those with the numbers given. Each that is found has passed its start-up self-check.
pub fn probe(wanted: Option<&[u32]>, processors: bool) -> Probe {
    let mut probe = Probe::default();
    let none = |probe: &mut Probe, index, name, reason: String| probe.pass(DeviceKind::OpenCl, index, Refusal::unfit(name, reason));
    let seen = match seen() {
        Ok(seen) => seen,
        Err(reason) => {
            none(&mut probe, None, None, reason);
            return probe;
        }
    };
    for index in wanted.into_iter().flatten().filter(|&&index| index as usize >= seen.len()) {
        none(&mut probe, Some(*index), None, format!("the OpenCL drivers show {} devices", seen.len()));
    }
    let gpus = seen.iter().any(|seen| !seen.cpu);
    for seen in seen.iter().filter(|seen| wanted.is_none_or(|wanted| wanted.contains(&seen.index))) {
        let reason = match (seen.cpu, processors, wanted) {
            (true, false, _) => {
                Some("it is a processor, which the CPU backend drives faster; `--backend opencl` uses it all the same".into())
            }
            // It would take the cores that feed the others.
            (true, true, None) if gpus => {
                Some(format!("it is a processor and there is better; `--devices {}` uses it all the same", seen.index))
            }
            _ => None,
        };
        if let Some(reason) = reason {
            none(&mut probe, Some(seen.index), Some(seen.name.clone()), reason);
            continue;
        }
        probe.open(DeviceKind::OpenCl, seen.index, Some(seen.name.clone()), || Ok(Arc::new(open_best(seen)?)));
    }
    probe
}

/// Opens one device with one product: how tests and measurements reach the path that a device would not choose. No self-check.
pub fn open_with(index: u32, product: Product) -> Result<OpenClBackend, DeviceFault> {
    let unsupported = |what| DeviceFault::Unsupported { what };
    let seen = seen().map_err(unsupported)?;
    let Some(seen) = seen.get(index as usize) else { return Err(unsupported(format!("OpenCL device {index} of {}", seen.len()))) };
    if !seen.products().contains(&product) {
        return Err(unsupported(format!("{} on {}", product.name(), seen.name)));
    }
    Card::open(seen, product).map(OpenClBackend::new).map_err(unsupported)
}

/// The fastest product that builds and gives right answers.
fn open_best(seen: &Seen) -> Result<OpenClBackend, Refusal> {
    let name = || Some(seen.name.clone());
    if !seen.little_endian {
        return Err(Refusal::unfit(name(), "it is big-endian"));
    }
    if !seen.compiler {
        return Err(Refusal::unfit(name(), "its driver has no compiler"));
    }
    let mut refused = Vec::new();
    for product in seen.products() {
        let opened = Card::open(seen, product).map(OpenClBackend::new);
        match opened.and_then(|backend| backend.self_check().map(|()| backend).map_err(|fault| format!("its self-check failed: {fault}"))) {
            Ok(backend) => {
                if !refused.is_empty() {
                    tracing::warn!(
                        device = seen.index,
                        chosen = product.name(),
                        refused = refused.join("; "),
                        "a faster product was passed over"
                    );
                }
                return Ok(backend);
            }
            Err(reason) => refused.push(format!("{}: {reason}", product.name())),
        }
    }
    if refused.is_empty() {
        return Err(Refusal::unfit(name(), "its work-groups or its local memory are too small"));
    }
    Err(Refusal::broken(name(), refused.join("; ")))
}

/// A device as its driver describes it.
struct Seen {
    id: DeviceId,
    index: u32,
    name: String,
    driver: String,
    cpu: bool,
    nvidia: bool,
    little_endian: bool,
    compiler: bool,
    units: u32,
    memory: u64,
    /// The largest buffer.
    allocation: u64,
    local_bytes: u64,
    group_items: u64,
    compute_capability: Option<(u32, u32)>,
    packed_dot: bool,
    pci_address: Option<String>,
}

/// Every device of every platform, in the drivers' order.
fn seen() -> Result<Vec<Seen>, String> {
    // Drivers that are first asked by two threads at once have been seen to crash (PoCL 3.1).
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // The loader is asked here first because ocl waits ten seconds for a platform to appear.
    let mut count = 0;
    // SAFETY: asks for the count only, which is written to a live variable.
    let status = unsafe { ffi::clGetPlatformIDs(0, ptr::null_mut(), &mut count) };
    if status != 0 || count == 0 {
        return Err("no OpenCL driver is installed".into());
    }
    let platforms = guarded("clGetPlatformIDs", cl::get_platform_ids).map_err(|fault| fault.to_string())?;
    let mut seen = Vec::new();
    for platform in platforms {
        // A platform without devices is an error to ocl; it adds nothing.
        let ids = guarded("clGetDeviceIDs", || cl::get_device_ids(platform, Some(cl::DEVICE_TYPE_ALL), None)).unwrap_or_default();
        for id in ids {
            let index = u32::try_from(seen.len()).unwrap_or(u32::MAX);
            seen.push(Seen::ask(id, index));
        }
    }
    if seen.is_empty() { Err("the OpenCL drivers show no device".into()) } else { Ok(seen) }
}

impl Seen {
    fn ask(id: DeviceId, index: u32) -> Self {
        // Numbers of extensions, from their specifications.
        const COMPUTE_CAPABILITY_MAJOR_NV: u32 = 0x4000;
        const COMPUTE_CAPABILITY_MINOR_NV: u32 = 0x4001;
        const PCI_BUS_NV: u32 = 0x4008;
        const PCI_SLOT_NV: u32 = 0x4009;
        const PCI_DOMAIN_NV: u32 = 0x400a;
        const PCI_BUS_INFO_KHR: u32 = 0x410f;
        const VENDOR_NVIDIA: u64 = 0x10de;

        let text = |what| words(&ask(id, what).unwrap_or_default());
        let number = |what| ask(id, what).map(|bytes| little(&bytes));
        let small = |what| number(what).and_then(|value| u32::try_from(value).ok());
        let extensions = text(ffi::CL_DEVICE_EXTENSIONS);
        let has = |name: &str| extensions.split(' ').any(|extension| extension == name);
        let nvidia = number(ffi::CL_DEVICE_VENDOR_ID) == Some(VENDOR_NVIDIA) && has("cl_nv_device_attribute_query");
        let compute_capability = if nvidia { small(COMPUTE_CAPABILITY_MAJOR_NV).zip(small(COMPUTE_CAPABILITY_MINOR_NV)) } else { None };
        let pci_address = if has("cl_khr_pci_bus_info") {
            ask(id, PCI_BUS_INFO_KHR).filter(|info| info.len() == 16).map(|info| {
                let word = |at: usize| little(&info[4 * at..4 * at + 4]);
                format!("{:04x}:{:02x}:{:02x}.{:x}", word(0), word(1), word(2), word(3))
            })
        } else if nvidia {
            let slot = small(PCI_SLOT_NV);
            small(PCI_BUS_NV)
                .zip(slot)
                .map(|(bus, slot)| format!("{:04x}:{bus:02x}:{:02x}.{:x}", small(PCI_DOMAIN_NV).unwrap_or(0), slot >> 3, slot & 7))
        } else {
            None
        };
        Self {
            id,
            index,
            name: text(ffi::CL_DEVICE_NAME),
            driver: text(ffi::CL_DRIVER_VERSION),
            cpu: number(ffi::CL_DEVICE_TYPE).is_some_and(|kind| kind & cl::DEVICE_TYPE_CPU.bits() != 0),
            nvidia,
            little_endian: number(ffi::CL_DEVICE_ENDIAN_LITTLE).is_some_and(|value| value != 0),
            compiler: number(ffi::CL_DEVICE_COMPILER_AVAILABLE).is_some_and(|value| value != 0),
            units: small(ffi::CL_DEVICE_MAX_COMPUTE_UNITS).unwrap_or(1).max(1),
            memory: number(ffi::CL_DEVICE_GLOBAL_MEM_SIZE).unwrap_or(0),
            allocation: number(ffi::CL_DEVICE_MAX_MEM_ALLOC_SIZE).unwrap_or(0),
            local_bytes: number(ffi::CL_DEVICE_LOCAL_MEM_SIZE).unwrap_or(0),
            group_items: number(ffi::CL_DEVICE_MAX_WORK_GROUP_SIZE).unwrap_or(0),
            compute_capability,
            packed_dot: has("cl_khr_integer_dot_product"),
            pci_address,
        }
    }

    /// The products that it may have, fastest first. Inline PTX is only shown to the compiler that knows it: others may not survive it.
    fn products(&self) -> Vec<Product> {
        let capability = self.compute_capability.filter(|_| self.nvidia).unwrap_or((0, 0));
        let may = |product: Product| {
            let has = match product {
                Product::Mma => capability >= (8, 0),
                Product::Dp4a => capability >= (6, 1),
                Product::Dot => self.packed_dot,
                Product::Plain => true,
            };
            has && self.local_bytes >= product.local_bytes() as u64 && self.group_items >= product.items() as u64
        };
        Product::ALL.into_iter().filter(|&product| may(product)).collect()
    }
}

/// What a device answers to a question, if it does.
fn ask(id: DeviceId, what: u32) -> Option<Vec<u8>> {
    let mut size = 0;
    // SAFETY: a valid device, no room for an answer, and a live variable for its size.
    if unsafe { ffi::clGetDeviceInfo(id.as_ptr(), what, 0, ptr::null_mut(), &mut size) } != 0 {
        return None;
    }
    let mut answer = vec![0_u8; size];
    // SAFETY: `answer` has room for `size` bytes.
    let status = unsafe { ffi::clGetDeviceInfo(id.as_ptr(), what, size, answer.as_mut_ptr().cast::<c_void>(), ptr::null_mut()) };
    (status == 0).then_some(answer)
}

/// A number as the host, which is little-endian like its devices, writes it.
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// A C string's words.
fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Calls the driver. ocl panics on an error number that it does not know: here that is a fault like any other.
fn guarded<T>(call: &str, body: impl FnOnce() -> cl::Result<T>) -> Result<T, DeviceFault> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(fault(call, &error)),
        Err(_) => Err(DeviceFault::Driver { call: call.into(), detail: "an error that has no name".into() }),
    }
}

fn fault(call: &str, error: &cl::Error) -> DeviceFault {
    let Some(status) = error.api_status() else {
        return DeviceFault::Driver { call: call.into(), detail: words(error.to_string().as_bytes()).chars().take(LOG_LIMIT).collect() };
    };
    let detail = format!("{call}: {status:?}");
    match status {
        Status::CL_MEM_OBJECT_ALLOCATION_FAILURE | Status::CL_OUT_OF_HOST_MEMORY | Status::CL_INVALID_BUFFER_SIZE => {
            DeviceFault::OutOfMemory { detail }
        }
        // Drivers say this of memory when they are asked to allocate, and of a broken context later.
        Status::CL_OUT_OF_RESOURCES if matches!(call, "clCreateBuffer" | "clEnqueueFillBuffer") => DeviceFault::OutOfMemory { detail },
        Status::CL_OUT_OF_RESOURCES
        | Status::CL_DEVICE_NOT_AVAILABLE
        | Status::CL_INVALID_COMMAND_QUEUE
        | Status::CL_INVALID_CONTEXT
        | Status::CL_NV_INVALID_MEM_ACCESS
        | Status::CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST => DeviceFault::Lost { detail },
        _ => DeviceFault::Driver { call: call.into(), detail: format!("{status:?}") },
    }
}

/// One device: its context, its queues and its kernels.
struct Card {
    device: Device,
    product: Product,
    cpu: bool,
    /// Bytes that scratch memory may take.
    scratch_limit: usize,
    handles: ManuallyDrop<Handles>,
    dead: Arc<AtomicBool>,
}

struct Handles {
    context: cl::Context,
    /// Everything is queued here, in order, with times.
    queue: cl::CommandQueue,
    /// For copies of what no queued kernel touches, while the other queue goes on.
    side: cl::CommandQueue,
    kernels: Vec<(Kernel, cl::Kernel)>,
}

impl Drop for Card {
    fn drop(&mut self) {
        if !self.dead.load(Ordering::Relaxed) {
            // SAFETY: dropped once, here; nothing uses it afterwards.
            unsafe { ManuallyDrop::drop(&mut self.handles) };
        }
    }
}

/// Device memory.
struct Buffer {
    mem: ManuallyDrop<Mem>,
    bytes: usize,
    dead: Arc<AtomicBool>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.dead.load(Ordering::Relaxed) {
            // SAFETY: dropped once, here. The driver keeps the memory until what is queued with it has run.
            unsafe { ManuallyDrop::drop(&mut self.mem) };
        }
    }
}

/// Something that was queued.
#[derive(Clone)]
struct Mark(Arc<Event>);

impl Card {
    /// Builds the source for one product. The reason of a failure is a sentence.
    fn open(seen: &Seen, product: Product) -> Result<Self, String> {
        let say = |fault: DeviceFault| fault.to_string();
        let context = guarded("clCreateContext", || cl::create_context(None, &[seen.id], None, None)).map_err(say)?;
        let times = cl::CommandQueueProperties::PROFILING_ENABLE;
        let queue = guarded("clCreateCommandQueue", || cl::create_command_queue(&context, seen.id, Some(times))).map_err(say)?;
        let side = guarded("clCreateCommandQueue", || cl::create_command_queue(&context, seen.id, None)).map_err(say)?;
        let source = CString::new(SOURCE).map_err(|_| "the source holds a NUL".to_string())?;
        let options = CString::new(product.options()).map_err(|_| "the options hold a NUL".to_string())?;
        let program = guarded("clCreateProgramWithSource", || cl::create_program_with_source(&context, &[source])).map_err(say)?;
        guarded("clBuildProgram", || cl::build_program(&program, Some(&[seen.id]), &options, None, None)).map_err(say)?;
        let mut kernels = Vec::new();
        for kernel in Kernel::ALL {
            kernels.push((kernel, guarded("clCreateKernel", || cl::create_kernel(&program, kernel.name())).map_err(say)?));
        }
        let digest = blake3::hash(format!("{}\n{SOURCE}", product.options()).as_bytes()).to_hex();
        let device = Device {
            kind: DeviceKind::OpenCl,
            index: seen.index,
            name: seen.name.clone(),
            driver: seen.driver.clone(),
            path: if seen.cpu { format!("cpu-{}", product.name()) } else { product.name().into() },
            code_digest: digest[..16].into(),
            memory_bytes: Some(seen.memory).filter(|&bytes| bytes > 0),
            units: seen.units,
            compute_capability: seen.compute_capability.map(|(major, minor)| format!("{major}.{minor}")),
            pci_address: seen.pci_address.clone(),
            peak_int8_tops: None,
        };
        // A single buffer takes at most about half of the scratch memory.
        let scratch = SCRATCH_LIMIT.min(seen.memory / 4).min(seen.allocation.saturating_mul(2));
        Ok(Self {
            device,
            product,
            cpu: seen.cpu,
            scratch_limit: usize::try_from(scratch).unwrap_or(usize::MAX),
            handles: ManuallyDrop::new(Handles { context, queue, side, kernels }),
            dead: Arc::default(),
        })
    }

    /// Every public operation begins with it.
    fn enter(&self) -> Result<(), DeviceFault> {
        if self.dead.load(Ordering::Relaxed) {
            return Err(DeviceFault::Lost { detail: "it failed before and was taken out".into() });
        }
        Ok(())
    }

    /// Calls the driver; faults that break the context make the card dead.
    fn call<T>(&self, call: &str, body: impl FnOnce() -> cl::Result<T>) -> Result<T, DeviceFault> {
        guarded(call, body).inspect_err(|fault| {
            if matches!(fault, DeviceFault::Lost { .. }) {
                self.dead.store(true, Ordering::Relaxed);
            }
        })
    }

    /// Device memory of zeros. Filling it now makes drivers that allocate late say now that there is none.
    fn allocate(&self, bytes: usize) -> Result<Buffer, DeviceFault> {
        let bytes = bytes.next_multiple_of(16).max(16);
        // SAFETY: no host memory is given, so the driver allocates its own.
        let create = || unsafe { cl::create_buffer::<_, u8>(&self.handles.context, cl::MEM_READ_WRITE, bytes, None) };
        let mem = self.call("clCreateBuffer", create).map_err(|fault| match fault {
            DeviceFault::OutOfMemory { detail } => DeviceFault::OutOfMemory { detail: format!("{} MiB: {detail}", bytes >> 20) },
            other => other,
        })?;
        let buffer = Buffer { mem: ManuallyDrop::new(mem), bytes, dead: Arc::clone(&self.dead) };
        let filled = self.clear(&buffer, bytes / 4)?;
        self.flush()?;
        self.wait(&filled)?;
        Ok(buffer)
    }

    /// Sets the first `words` words of a buffer to zero, in the order of the queue.
    fn clear(&self, buffer: &Buffer, words: usize) -> Result<Mark, DeviceFault> {
        assert!(words * 4 <= buffer.bytes, "clearing {words} words of {} bytes", buffer.bytes);
        let mut event = Event::null();
        self.call("clEnqueueFillBuffer", || {
            cl::enqueue_fill_buffer(&self.handles.queue, &*buffer.mem, 0_u32, 0, words, None::<()>, Some(&mut event), None)
        })?;
        Ok(Mark(Arc::new(event)))
    }

    /// Copies to the device now, beside what the queue does. Only for buffers that nothing queued reads or writes.
    fn upload(&self, from: &[u8], to: &Buffer) -> Result<(), DeviceFault> {
        assert!(from.len() <= to.bytes, "an upload of {} bytes into {}", from.len(), to.bytes);
        // SAFETY: both ends are long enough, and the call returns when the copy is done.
        let write = || unsafe { cl::enqueue_write_buffer(&self.handles.side, &*to.mem, true, 0, from, None::<()>, None::<()>) };
        self.call("clEnqueueWriteBuffer", write)
    }

    /// Copies the buffer's beginning from the device now, beside what the queue does. Only for buffers that nothing queued writes.
    fn download(&self, from: &Buffer, to: &mut [u8]) -> Result<(), DeviceFault> {
        assert!(to.len() <= from.bytes, "a download of {} bytes from {}", to.len(), from.bytes);
        // SAFETY: both ends are long enough, and the call returns when the copy is done.
        let read = || unsafe { cl::enqueue_read_buffer(&self.handles.side, &*from.mem, true, 0, to, None::<()>, None::<()>) };
        self.call("clEnqueueReadBuffer", read)
    }

    /// Queues a kernel.
    fn launch(&self, call: &Call<'_>) -> Result<Mark, DeviceFault> {
        for (buffer, bytes) in &call.needs {
            assert!(buffer.bytes >= *bytes, "{} needs {bytes} bytes in a buffer of {}", call.kernel.name(), buffer.bytes);
        }
        let Some((_, kernel)) = self.handles.kernels.iter().find(|(kernel, _)| *kernel == call.kernel) else {
            unreachable!("a card has every kernel")
        };
        for (at, arg) in call.args.iter().enumerate() {
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            self.call("clSetKernelArg", || match arg {
                Arg::Word(word) => cl::set_kernel_arg(kernel, at, ArgVal::scalar(word)),
                Arg::Words(words) => cl::set_kernel_arg(kernel, at, ArgVal::vector(&cl::Uint4::from(*words))),
                Arg::Buffer(buffer) => cl::set_kernel_arg(kernel, at, ArgVal::mem(&buffer.mem)),
            })?;
        }
        let mut event = Event::null();
        let (items, group) = ([call.groups * call.group, 1, 1], [call.group, 1, 1]);
        // SAFETY: every argument is set above to a value of the parameter's type, which `launch` keeps beside the source; the buffers are
        // as large as the kernel needs, and the driver keeps them until it has run.
        let enqueue =
            || unsafe { cl::enqueue_kernel(&self.handles.queue, kernel, 1, None, &items, Some(group), None::<()>, Some(&mut event)) };
        self.call("clEnqueueNDRangeKernel", enqueue)?;
        Ok(Mark(Arc::new(event)))
    }

    /// Hands what is queued to the device.
    fn flush(&self) -> Result<(), DeviceFault> {
        self.call("clFlush", || cl::flush(&self.handles.queue))
    }

    /// Waits for what was queued, and tells how long it ran. Sleeps between looks, because drivers' own waits burn a core.
    fn wait(&self, mark: &Mark) -> Result<Duration, DeviceFault> {
        let mut since = Waited::new(Instant::now(), GAP);
        loop {
            // The clock is read before the device is asked, so that a card is asked once more after the limit before it is given up.
            let waited = since.look(Instant::now());
            if self.done(mark)? {
                break;
            }
            if waited > HUNG_AFTER {
                self.dead.store(true, Ordering::Relaxed);
                return Err(DeviceFault::Hung { waited_secs: HUNG_AFTER.as_secs() });
            }
            if waited > AWAKE { std::thread::sleep(NAP) } else { std::thread::yield_now() }
        }
        let at = |what| self.call("clGetEventProfilingInfo", || cl::get_event_profiling_info(&*mark.0, what).and_then(|time| time.time()));
        Ok(Duration::from_nanos(at(ProfilingInfo::End)?.saturating_sub(at(ProfilingInfo::Start)?)))
    }

    fn done(&self, mark: &Mark) -> Result<bool, DeviceFault> {
        let mut status: i32 = 0;
        let asked = self.call("clGetEventInfo", || {
            // SAFETY: a live event, and a live variable of the answer's size.
            let code = unsafe {
                ffi::clGetEventInfo(
                    *mark.0.as_ptr_ref(),
                    ffi::CL_EVENT_COMMAND_EXECUTION_STATUS,
                    size_of::<i32>(),
                    ptr::from_mut(&mut status).cast::<c_void>(),
                    ptr::null_mut(),
                )
            };
            if code == 0 { Ok(()) } else { Err(cl::Error::from(format!("error {code}"))) }
        });
        asked?;
        if status < 0 {
            self.dead.store(true, Ordering::Relaxed);
            return Err(DeviceFault::Lost { detail: format!("a kernel ended with error {status}") });
        }
        Ok(status == ffi::CL_COMPLETE)
    }
}
