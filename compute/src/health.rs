//! What devices tell of their state: power, temperature, memory, clock. What a machine does not tell is `None`, never a guess.
//!
//! NVIDIA's cards are asked by NVML, opened at run time; the CPU by `/proc` and `/sys`. Readings inform people and nothing else.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fs;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::backend::{Device, DeviceKind};

/// One look at a device.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Reading {
    /// Drawn power.
    pub power_watts: Option<f64>,
    /// The limit that is enforced on it.
    pub power_limit_watts: Option<f64>,
    /// Core temperature.
    pub temperature_celsius: Option<f64>,
    /// Memory in use, by everybody.
    pub memory_used_bytes: Option<u64>,
    /// All memory.
    pub memory_total_bytes: Option<u64>,
    /// Clock of the multiprocessors or cores.
    pub clock_mhz: Option<f64>,
}

/// Reads devices' health. Keeps the driver's library open and the last energy counters: power of a CPU is known from the second look on.
#[derive(Default)]
pub struct Health {
    nvml: Option<Nvml>,
    nvml_missing: bool,
    energy: HashMap<String, (Instant, f64)>,
}

impl Health {
    /// Opens nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at a device. Takes under a millisecond on a CPU, a few on a GPU.
    pub fn read(&mut self, device: &Device) -> Reading {
        match (device.kind, &device.pci_address) {
            (DeviceKind::Cpu, _) => self.read_cpu(),
            (_, Some(address)) => self.nvml().and_then(|nvml| nvml.read(address)).unwrap_or_default(),
            (_, None) => Reading::default(),
        }
    }

    fn nvml(&mut self) -> Option<&Nvml> {
        if self.nvml.is_none() && !self.nvml_missing {
            self.nvml = Nvml::open();
            self.nvml_missing = self.nvml.is_none();
        }
        self.nvml.as_ref()
    }

    fn read_cpu(&mut self) -> Reading {
        let (total, available) = (meminfo("MemTotal:"), meminfo("MemAvailable:"));
        Reading {
            power_watts: self.cpu_power(),
            power_limit_watts: None,
            temperature_celsius: cpu_temperature(),
            memory_used_bytes: total.zip(available).map(|(total, available)| total.saturating_sub(available)),
            memory_total_bytes: total,
            clock_mhz: cpu_clock(),
        }
    }

    /// Watts of all packages since the last look, from RAPL's energy counters (readable by root on most systems).
    fn cpu_power(&mut self) -> Option<f64> {
        let mut watts = None;
        for entry in fs::read_dir("/sys/class/powercap").ok()?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Packages are `intel-rapl:0`; their parts have a second colon and are counted in them already.
            if !name.starts_with("intel-rapl:") || name.matches(':').count() != 1 {
                continue;
            }
            let Some(joules) = number(&entry.path().join("energy_uj")).map(|uj| uj / 1e6) else { continue };
            let now = Instant::now();
            if let Some((then, before)) = self.energy.insert(name, (now, joules)) {
                let secs = now.duration_since(then).as_secs_f64();
                // The counter wraps: a look across that is left out.
                if joules >= before && secs > 0.0 {
                    watts = Some(watts.unwrap_or(0.0) + (joules - before) / secs);
                }
            }
        }
        watts
    }
}

/// The processor's name.
pub fn cpu_name() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The operating system's release.
pub fn kernel_release() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(format!("Linux {}", release.trim()))
}

/// The machine's memory.
pub fn memory_bytes() -> Option<u64> {
    meminfo("MemTotal:")
}

fn meminfo(key: &str) -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = info.lines().find(|line| line.starts_with(key))?.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn number(path: &Path) -> Option<f64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn cpu_temperature() -> Option<f64> {
    for entry in fs::read_dir("/sys/class/hwmon").ok()?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if ["coretemp", "k10temp", "zenpower", "cpu_thermal"].contains(&name.trim()) {
            return number(&entry.path().join("temp1_input")).map(|milli| milli / 1000.0);
        }
    }
    None
}

fn cpu_clock() -> Option<f64> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let clocks: Vec<f64> =
        info.lines().filter(|line| line.starts_with("cpu MHz")).filter_map(|line| line.split_once(':')?.1.trim().parse().ok()).collect();
    (!clocks.is_empty()).then(|| clocks.iter().sum::<f64>() / clocks.len() as f64)
}

/// NVIDIA's management library, opened and started.
struct Nvml {
    library: libloading::Library,
}

type Handle = *mut c_void;

#[repr(C)]
#[derive(Default)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// `NVML_SUCCESS`.
const SUCCESS: c_int = 0;
/// `NVML_TEMPERATURE_GPU`.
const TEMPERATURE_GPU: c_uint = 0;
/// `NVML_CLOCK_SM`.
const CLOCK_SM: c_uint = 1;

impl Nvml {
    fn open() -> Option<Self> {
        // SAFETY: NVML's initialisers are those of a vendor's driver library that the dynamic linker would run as well.
        let library = unsafe { libloading::Library::new("libnvidia-ml.so.1") }.ok()?;
        let nvml = Self { library };
        // SAFETY: `nvmlInit_v2` takes nothing and returns a status, by NVML's header.
        let status = unsafe { nvml.library.get::<unsafe extern "C" fn() -> c_int>(b"nvmlInit_v2\0").ok()?() };
        (status == SUCCESS).then_some(nvml)
    }

    fn read(&self, pci_address: &str) -> Option<Reading> {
        let address = CString::new(pci_address).ok()?;
        let mut handle: Handle = std::ptr::null_mut();
        // SAFETY: by NVML's header it takes a C string and a place for a handle; both outlive the call.
        let status = unsafe {
            self.library.get::<unsafe extern "C" fn(*const c_char, *mut Handle) -> c_int>(b"nvmlDeviceGetHandleByPciBusId_v2\0").ok()?(
                address.as_ptr(),
                &raw mut handle,
            )
        };
        if status != SUCCESS {
            return None;
        }
        let mut memory = Memory::default();
        // SAFETY: by NVML's header it takes a valid handle and a place for `nvmlMemory_t`, which is three 64-bit numbers.
        let memory_status = unsafe {
            self.library
                .get::<unsafe extern "C" fn(Handle, *mut Memory) -> c_int>(b"nvmlDeviceGetMemoryInfo\0")
                .map_or(-1, |call| call(handle, &raw mut memory))
        };
        let memory = (memory_status == SUCCESS).then_some(memory);
        Some(Reading {
            power_watts: self.plain(b"nvmlDeviceGetPowerUsage\0", handle).map(|mw| mw / 1000.0),
            power_limit_watts: self.plain(b"nvmlDeviceGetEnforcedPowerLimit\0", handle).map(|mw| mw / 1000.0),
            temperature_celsius: self.by_kind(b"nvmlDeviceGetTemperature\0", handle, TEMPERATURE_GPU),
            memory_used_bytes: memory.as_ref().map(|memory| memory.used),
            memory_total_bytes: memory.as_ref().map(|memory| memory.total),
            clock_mhz: self.by_kind(b"nvmlDeviceGetClockInfo\0", handle, CLOCK_SM),
        })
    }

    fn plain(&self, symbol: &[u8], handle: Handle) -> Option<f64> {
        let mut value: c_uint = 0;
        // SAFETY: the two symbols this is called with take a valid handle and a place for an unsigned int, by NVML's header.
        let status =
            unsafe { self.library.get::<unsafe extern "C" fn(Handle, *mut c_uint) -> c_int>(symbol).ok()?(handle, &raw mut value) };
        (status == SUCCESS).then(|| f64::from(value))
    }

    fn by_kind(&self, symbol: &[u8], handle: Handle, kind: c_uint) -> Option<f64> {
        let mut value: c_uint = 0;
        // SAFETY: the two symbols this is called with take a valid handle, an enum and a place for an unsigned int, by NVML's header.
        let status = unsafe {
            self.library.get::<unsafe extern "C" fn(Handle, c_uint, *mut c_uint) -> c_int>(symbol).ok()?(handle, kind, &raw mut value)
        };
        (status == SUCCESS).then(|| f64::from(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;
    use crate::cpu::CpuBackend;

    #[test]
    fn a_cpu_tells_its_memory_and_a_card_that_is_not_there_tells_nothing() {
        let cpu = CpuBackend::new(Some(1)).unwrap();
        let mut health = Health::new();
        let reading = health.read(cpu.device());
        assert!(reading.memory_total_bytes > reading.memory_used_bytes);
        let absent = Device { kind: DeviceKind::Cuda, pci_address: Some("ffff:ff:1f.7".into()), ..cpu.device().clone() };
        assert_eq!(health.read(&absent), Reading::default());
    }
}
