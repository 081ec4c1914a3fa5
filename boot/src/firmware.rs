//! Calls into the firmware. Everything else in this program is safe because of what is said here.
//!
//! **Interrupts.** `core` is compiled for this target with a red zone: its leaf functions use the
//! 128 bytes below the stack pointer without reserving them. Firmware handles its timer interrupt
//! on the same stack and would overwrite them. So interrupts are off whenever our code runs, and
//! on only from just before a call into the firmware to just after it ([`call`]). The code in
//! between belongs to a function that makes a call, which is therefore no leaf and uses no red
//! zone. Firmware keeps time by its timer interrupt; the longest stretch without it is the hashing
//! of one chunk of a UKI, some milliseconds, in which at most some ticks are lost.

use core::arch::asm;
use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};
use picker::machine::Fault;
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::table::boot::{AllocateType, BootServices, EventType, MemoryType, TimerDelay, Tpl};
use uefi_raw::table::runtime::{ResetType, RuntimeServices, VariableAttributes};
use uefi_raw::table::system::SystemTable;
use uefi_raw::time::Time;
use uefi_raw::{Boolean, Guid, Handle, Status};

/// Seconds until the firmware's watchdog resets the machine: the time that UEFI 2.10, section
/// 3.1.2 gives a boot option.
const WATCHDOG_SECONDS: usize = 5 * 60;
/// Codes below are the firmware's own (UEFI 2.10, section 7.5).
const WATCHDOG_CODE: u64 = 0x1_0000;

/// Size of what [`Firmware::allocate`] allocates in bytes.
pub const PAGE: usize = 4096;

static SYSTEM: AtomicPtr<SystemTable> = AtomicPtr::new(ptr::null_mut());

/// The firmware that started this program.
#[derive(Clone, Copy)]
pub struct Firmware {
    image: Handle,
    system: &'static SystemTable,
    boot: &'static BootServices,
    runtime: &'static RuntimeServices,
}

/// Runs `body`, which does nothing but call the firmware, with interrupts on.
#[inline(always)]
pub fn call<R>(body: impl FnOnce() -> R) -> R {
    // SAFETY: firmware runs its programs at the privilege that this takes, and with interrupts on;
    // the head of this file says why nothing is lost by them here. Memory is not given as
    // untouched, so that the compiler keeps the order.
    unsafe { asm!("sti", options(nostack)) };
    let result = body();
    // SAFETY: as above; they are on again at the next call, which is before they are needed.
    unsafe { asm!("cli", options(nostack)) };
    result
}

/// The answer of a call as a result.
pub fn check(status: Status) -> Result<(), Fault> {
    if status.is_success() { Ok(()) } else { Err(Fault(status.0)) }
}

impl Firmware {
    /// Takes over from the firmware: from here on interrupts are off outside of [`call`].
    ///
    /// # Safety
    ///
    /// `image` and `system` are what firmware gave to the entry of this program, which runs on
    /// one processor before `ExitBootServices`.
    pub unsafe fn enter(image: Handle, system: *const SystemTable) -> Firmware {
        call(|| ());
        SYSTEM.store(system.cast_mut(), Ordering::Relaxed);
        // SAFETY: the caller promises it.
        unsafe { Firmware::of(image, system) }
    }

    /// The firmware for a panic handler, which is given nothing; it can neither load nor find
    /// images.
    pub fn current() -> Option<Firmware> {
        let system = NonNull::new(SYSTEM.load(Ordering::Relaxed))?;
        // SAFETY: `enter` put it there.
        Some(unsafe { Firmware::of(ptr::null_mut(), system.as_ptr()) })
    }

    /// # Safety
    ///
    /// As for [`Firmware::enter`].
    unsafe fn of(image: Handle, system: *const SystemTable) -> Firmware {
        // SAFETY: the system table and its services are valid until `ExitBootServices`, which
        // only a started system calls, and that one does not come back. Firmware may replace
        // pointers in them during a call; none of them is kept across calls.
        unsafe {
            let system = &*system;
            Firmware {
                image,
                system,
                boot: &*system.boot_services,
                runtime: &*system.runtime_services,
            }
        }
    }

    /// Writes `text`, which ends with a NUL, to the console.
    pub fn print(&self, text: &[u16]) {
        assert!(text.last() == Some(&0));
        let out = self.system.stdout;
        if !out.is_null() {
            // SAFETY: the protocol is valid until `ExitBootServices`; the text ends.
            let _ = call(|| unsafe { ((*out).output_string)(out, text.as_ptr()) });
        }
    }

    /// The protocol `guid` of `handle`. It is not opened exclusively: on a disk that would take
    /// it away from the driver of its partitions, which would vanish.
    pub fn protocol<T>(&self, handle: Handle, guid: &Guid) -> Result<NonNull<T>, Fault> {
        let mut found: *mut c_void = ptr::null_mut();
        if handle.is_null() {
            return Err(Fault::NOT_FOUND);
        }
        // SAFETY: `GetProtocol` of a handle that firmware gave us; it writes one pointer.
        check(call(|| unsafe { (self.boot.handle_protocol)(handle, guid, &mut found) }))?;
        NonNull::new(found.cast()).ok_or(Fault::NOT_FOUND)
    }

    /// The device that this program was loaded from.
    pub fn own_device(&self) -> Result<Handle, Fault> {
        let loaded =
            self.protocol::<LoadedImageProtocol>(self.image, &LoadedImageProtocol::GUID)?;
        // SAFETY: this GUID stands for that type; it is valid as long as this program runs.
        Ok(unsafe { loaded.as_ref() }.device_handle)
    }

    /// The handle that has protocol `guid` and whose path is the longest beginning of `path`,
    /// with the rest of the path.
    ///
    /// # Safety
    ///
    /// `path` is a device path that ends with an end node.
    pub unsafe fn locate(
        &self,
        guid: &Guid,
        path: *const DevicePathProtocol,
    ) -> Result<(Handle, *const DevicePathProtocol), Fault> {
        let (mut rest, mut handle) = (path, ptr::null_mut());
        check(call(|| {
            // SAFETY: the caller promises that the path ends; the two others are ours.
            unsafe { (self.boot.locate_device_path)(guid, &mut rest, &mut handle) }
        }))?;
        Ok((handle, rest))
    }

    /// Allocates pages. Their content is undefined.
    pub fn allocate(&self, pages: usize) -> Result<NonNull<u8>, Fault> {
        let mut address = 0;
        let (how, kind) = (AllocateType::ANY_PAGES, MemoryType::LOADER_DATA);
        // SAFETY: firmware writes one address.
        check(call(|| unsafe { (self.boot.allocate_pages)(how, kind, pages, &mut address) }))?;
        NonNull::new(ptr::with_exposed_provenance_mut(address as usize))
            .ok_or(Fault::OUT_OF_RESOURCES)
    }

    /// Gives pages back.
    ///
    /// # Safety
    ///
    /// [`Firmware::allocate`] gave exactly these, and nothing uses them any more.
    pub unsafe fn free(&self, address: NonNull<u8>, pages: usize) {
        let address = address.as_ptr().expose_provenance() as u64;
        // SAFETY: the caller promises it. Firmware that refuses keeps its memory.
        let _ = call(|| unsafe { (self.boot.free_pages)(address, pages) });
    }

    /// Hands `uki` to the firmware, which copies what it needs of it.
    ///
    /// It gets no device path: the system that starts finds everything by its own content, and
    /// nothing that lies beside it on a filesystem can change it.
    pub fn load_image(&self, uki: &[u8]) -> Result<Handle, Fault> {
        let mut image = ptr::null_mut();
        let (no, path) = (Boolean::FALSE, ptr::null());
        let status = call(|| {
            // SAFETY: the bytes live through the call; firmware writes one handle.
            unsafe {
                let (start, len) = (uki.as_ptr(), uki.len());
                (self.boot.load_image)(no, self.image, path, start, len, &mut image)
            }
        });
        if status.is_error() && !image.is_null() {
            // Secure Boot refuses to start it, yet it was loaded.
            // SAFETY: firmware gave us this handle.
            let _ = call(|| unsafe { (self.boot.unload_image)(image) });
        }
        check(status).map(|()| image)
    }

    /// Starts `image`; comes back only if it did.
    pub fn start_image(&self, image: Handle) -> Fault {
        let (len, data) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the handle is of `load_image`. Its digest was checked, so it is what was
        // released; it is trusted with the machine.
        Fault(call(|| unsafe { (self.boot.start_image)(image, len, data) }).0)
    }

    /// Gives what follows its own five minutes.
    ///
    /// Firmware arms its watchdog for the boot option, which is us, and `ExitBootServices` stops
    /// it. It stays armed all through: a disk driver or a system that hangs must end in a reset,
    /// because nobody stands in front of the machine. But one slow disk read twice must not use
    /// up the time of the slot that is started after it.
    pub fn arm_watchdog(&self) {
        let (seconds, code, text) = (WATCHDOG_SECONDS, WATCHDOG_CODE, ptr::null());
        // SAFETY: plain numbers, and no text. Firmware without a watchdog refuses.
        let _ = call(|| unsafe { (self.boot.set_watchdog_timer)(seconds, code, 0, text) });
    }

    /// Waits for seconds with the processor asleep, which [`Firmware::wait`] keeps busy.
    pub fn rest(&self, seconds: u64) {
        if self.rest_until_timer(seconds).is_err() {
            self.wait(seconds as usize * 1_000_000);
        }
    }

    fn rest_until_timer(&self, seconds: u64) -> Result<(), Fault> {
        // UEFI 2.10, section 7.1: times are in units of 100 ns, and events without a function to
        // notify have any level.
        let (timer, level, mut event) = (EventType::TIMER, Tpl::APPLICATION, ptr::null_mut());
        let (at, mut signalled) = (seconds * 10_000_000, 0);
        let boot = self.boot;
        // SAFETY: without a function to notify there is nothing to give it; firmware writes the event.
        check(call(|| unsafe {
            (boot.create_event)(timer, level, None, ptr::null_mut(), &mut event)
        }))?;
        // SAFETY: the event was just made and is never closed: a reset follows.
        check(call(|| unsafe { (boot.set_timer)(event, TimerDelay::RELATIVE, at) }))?;
        // SAFETY: one event, and room for its number.
        check(call(|| unsafe { (boot.wait_for_event)(1, &event, &mut signalled) }))
    }

    /// Waits, exactly and with the processor busy.
    pub fn wait(&self, microseconds: usize) {
        // SAFETY: a plain number.
        let _ = call(|| unsafe { (self.boot.stall)(microseconds) });
    }

    /// The time of the machine's clock, if it has one.
    pub fn time(&self) -> Option<Time> {
        let mut time = Time::invalid();
        // SAFETY: firmware writes the time; it needs not tell what its clock can do.
        let status = call(|| unsafe { (self.runtime.get_time)(&mut time, ptr::null_mut()) });
        status.is_success().then_some(time)
    }

    /// Sets a variable that lives until the next reset and that the system can read. `name` ends
    /// with a NUL.
    pub fn set_variable(&self, vendor: &Guid, name: &[u16], value: &[u8]) {
        assert!(name.last() == Some(&0));
        let how = VariableAttributes::BOOTSERVICE_ACCESS | VariableAttributes::RUNTIME_ACCESS;
        // SAFETY: the name ends, the value has its length. The system does without a variable
        // that could not be set.
        let _ = call(|| unsafe {
            let (name, len, value) = (name.as_ptr(), value.len(), value.as_ptr());
            (self.runtime.set_variable)(name, vendor, how, len, value)
        });
    }

    /// Resets the machine.
    pub fn cold_reset(&self) -> ! {
        // SAFETY: it needs nothing of us and does not come back.
        call(|| unsafe {
            (self.runtime.reset_system)(ResetType::COLD, Status::SUCCESS, 0, ptr::null())
        })
    }
}
