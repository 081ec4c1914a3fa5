//! Device mapper: just enough for one read-only dm-verity device.
//!
//! The interface is that of linux/dm-ioctl.h, version 4.

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use std::fs::File;
use std::io;

/// The only node that device mapper is spoken to through.
const CONTROL: &str = "/dev/mapper/control";

const DEV_CREATE: u8 = 3;
const DEV_REMOVE: u8 = 4;
const DEV_SUSPEND: u8 = 6;
const TABLE_LOAD: u8 = 9;

const READ_ONLY: u32 = 1;

const PAYLOAD: usize = 4096;

/// `struct dm_ioctl`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

/// `struct dm_ioctl` and what follows it.
#[repr(C)]
struct Request {
    header: Header,
    payload: [u8; PAYLOAD],
}

const HEADER_LEN: usize = size_of::<Header>();
const TARGET_LEN: usize = 40;

const fn code(number: u8) -> Opcode {
    opcode::read_write::<Header>(0xfd, number)
}

/// One target over a whole device: `struct dm_target_spec` and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Length in sectors of 512 bytes.
    pub sectors: u64,
    /// `verity`
    pub kind: &'a str,
    /// What dmsetup(8) takes as table parameters.
    pub parameters: &'a str,
}

/// A device that exists. Dropping it does not remove it.
#[derive(Debug)]
pub struct Device {
    control: File,
    name: String,
    number: u64,
}

impl Request {
    fn new(name: &str, flags: u32) -> io::Result<Request> {
        let mut header = Header {
            version: [4, 0, 0],
            data_size: size_of::<Request>() as u32,
            data_start: HEADER_LEN as u32,
            target_count: 0,
            open_count: 0,
            flags,
            event_nr: 0,
            padding: 0,
            dev: 0,
            name: [0; 128],
            uuid: [0; 129],
            data: [0; 7],
        };
        if name.is_empty() || name.len() >= header.name.len() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        header.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Request { header, payload: [0; PAYLOAD] })
    }

    fn set_target(&mut self, target: &Target) -> io::Result<()> {
        // One byte stays for the final NUL.
        let end = TARGET_LEN + target.parameters.len() + 1;
        if target.kind.len() >= 16 || end > PAYLOAD {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        self.header.target_count = 1;
        let out = &mut self.payload;
        out[8..16].copy_from_slice(&target.sectors.to_ne_bytes());
        out[20..24].copy_from_slice(&(end.next_multiple_of(8) as u32).to_ne_bytes());
        out[24..24 + target.kind.len()].copy_from_slice(target.kind.as_bytes());
        out[TARGET_LEN..end - 1].copy_from_slice(target.parameters.as_bytes());
        Ok(())
    }

    fn send<const CODE: Opcode>(&mut self, control: &File) -> io::Result<()> {
        // SAFETY: every CODE used is a DM_* ioctl, which takes a `struct dm_ioctl`; `data_size`
        // is the size of the whole `Request`, so the kernel stays inside it.
        let request = unsafe { Updater::<CODE, Request>::new(self) };
        // SAFETY: the same.
        Ok(unsafe { ioctl(control, request) }?)
    }
}

/// Creates the read-only device `name` with one target. Its node is `/dev/dm-N`.
pub fn create_read_only(name: &str, target: &Target) -> io::Result<Device> {
    let control = File::options().read(true).write(true).open(CONTROL)?;
    let mut create = Request::new(name, READ_ONLY)?;
    create.send::<{ code(DEV_CREATE) }>(&control)?;
    let device = Device { control, name: name.to_owned(), number: create.header.dev };
    let mut load = Request::new(name, READ_ONLY)?;
    load.set_target(target)?;
    // "Suspend" without the suspend flag means resume: it makes the loaded table live.
    let loaded = load.send::<{ code(TABLE_LOAD) }>(&device.control).and_then(|()| {
        Request::new(name, READ_ONLY)?.send::<{ code(DEV_SUSPEND) }>(&device.control)
    });
    match loaded {
        Ok(()) => Ok(device),
        Err(e) => {
            // The table is what failed; that is what the caller hears of.
            let _ = device.remove();
            Err(e)
        }
    }
}

impl Device {
    /// The device node that devtmpfs has made.
    pub fn node(&self) -> String {
        // The kernel's `huge_encode_dev`: minor bits 0..8 and 20..32 around the major number.
        let minor = self.number & 0xff | (self.number >> 12) & 0xfff00;
        format!("/dev/dm-{minor}")
    }

    /// Removes the device.
    pub fn remove(self) -> io::Result<()> {
        Request::new(&self.name, 0)?.send::<{ code(DEV_REMOVE) }>(&self.control)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(HEADER_LEN, 312);
        // DM_TABLE_LOAD as strace shows it: _IOC(_IOC_READ|_IOC_WRITE, 0xfd, 0x9, 0x138).
        assert_eq!(code(TABLE_LOAD), 0xc138_fd09);
    }

    #[test]
    fn a_target_is_laid_out_as_the_kernel_reads_it() {
        let mut request = Request::new("root", READ_ONLY).expect("a name");
        let target = Target { sectors: 0x1122, kind: "verity", parameters: "1 a b" };
        request.set_target(&target).expect("a short target");
        assert_eq!(request.payload[8..10], [0x22, 0x11]);
        assert_eq!(request.payload[20..24], 48_u32.to_ne_bytes());
        assert_eq!(&request.payload[24..31], b"verity\0");
        assert_eq!(&request.payload[40..46], b"1 a b\0");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Request::new("", 0).is_err());
        assert!(Request::new(&"x".repeat(128), 0).is_err());
        let parameters = "x".repeat(PAYLOAD - TARGET_LEN);
        let target = Target { sectors: 1, kind: "verity", parameters: &parameters };
        assert!(Request::new("root", 0).expect("a name").set_target(&target).is_err());
    }
}
