//! A guest of 190 bytes that shows whether virtualisation works.
//!
//! It goes the way that every real guest goes: from the reset vector through protected mode into
//! 64-bit mode with paging, changes memory under a lock a million times, executes `cpuid` (which
//! always leaves the guest) and then writes [`ANSWER`] to the port of QEMU's `isa-debug-exit`.

/// Size of the firmware image, the smallest that QEMU takes.
const SIZE: usize = 64 << 10;

/// Where the processor starts, within the last 64 KiB below 4 GiB.
const RESET_VECTOR: usize = 0xfff0;

/// What the guest writes.
pub const ANSWER: u8 = 0x2a;

/// The port that the guest writes to.
pub const PORT: u16 = 0xf4;

/// QEMU's exit status after that, by definition of `isa-debug-exit`.
pub const EXIT_STATUS: i32 = (ANSWER as i32) << 1 | 1;

#[rustfmt::skip]
const CODE: [u8; 190] = [
    // Real mode, cs = 0xffff0000.
    0xfa,                                           // 00 cli
    0x2e, 0x66, 0x0f, 0x01, 0x16, 0xb8, 0x00,       // 01 lgdtl %cs:0xb8
    0x0f, 0x20, 0xc0,                               // 08 mov %cr0,%eax
    0x0c, 0x01,                                     // 0b or $1,%al: PE
    0x0f, 0x22, 0xc0,                               // 0d mov %eax,%cr0
    0x66, 0xea, 0x18, 0x00, 0xff, 0xff, 0x08, 0x00, // 10 ljmpl $8,$0xffff0018
    // Protected mode: map the first and the last 2 MiB below 4 GiB.
    0x66, 0xb8, 0x10, 0x00,                         // 18 mov $16,%ax
    0x8e, 0xd8,                                     // 1c mov %eax,%ds
    0xc7, 0x05, 0x00, 0x10, 0x00, 0x00, 0x03, 0x20, 0x00, 0x00, // 1e movl $0x2003,0x1000
    0xc7, 0x05, 0x00, 0x20, 0x00, 0x00, 0x03, 0x40, 0x00, 0x00, // 28 movl $0x4003,0x2000
    0xc7, 0x05, 0x18, 0x20, 0x00, 0x00, 0x03, 0x30, 0x00, 0x00, // 32 movl $0x3003,0x2018
    0xc7, 0x05, 0xf8, 0x3f, 0x00, 0x00, 0x83, 0x00, 0xe0, 0xff, // 3c movl $0xffe00083,0x3ff8
    0xc7, 0x05, 0x00, 0x40, 0x00, 0x00, 0x83, 0x00, 0x00, 0x00, // 46 movl $0x83,0x4000
    0xb8, 0x00, 0x10, 0x00, 0x00,                   // 50 mov $0x1000,%eax
    0x0f, 0x22, 0xd8,                               // 55 mov %eax,%cr3
    0x0f, 0x20, 0xe0,                               // 58 mov %cr4,%eax
    0x0c, 0x20,                                     // 5b or $0x20,%al: PAE
    0x0f, 0x22, 0xe0,                               // 5d mov %eax,%cr4
    0xb9, 0x80, 0x00, 0x00, 0xc0,                   // 60 mov $0xc0000080,%ecx: EFER
    0x0f, 0x32,                                     // 65 rdmsr
    0x80, 0xcc, 0x01,                               // 67 or $1,%ah: LME
    0x0f, 0x30,                                     // 6a wrmsr
    0x0f, 0x20, 0xc0,                               // 6c mov %cr0,%eax
    0x0d, 0x00, 0x00, 0x00, 0x80,                   // 6f or $0x80000000,%eax: PG
    0x0f, 0x22, 0xc0,                               // 74 mov %eax,%cr0
    0xea, 0x7e, 0x00, 0xff, 0xff, 0x18, 0x00,       // 77 ljmp $24,$0xffff007e
    // 64-bit mode.
    0xb9, 0x00, 0x00, 0x10, 0x00,                   // 7e mov $0x100000,%ecx
    0xf0, 0xff, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00, // 83 lock incl 0x8000
    0xe2, 0xf6,                                     // 8b loop 83
    0x0f, 0xa2,                                     // 8d cpuid
    0xb0, ANSWER,                                   // 8f mov $ANSWER,%al
    0xe6, PORT as u8,                               // 91 out %al,$PORT
    0xf4,                                           // 93 hlt
    0xeb, 0xfd,                                     // 94 jmp 93
    0x66, 0x90,                                     // 96 nop
    // Descriptors: none, 32-bit code, data, 64-bit code.
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // 98
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xcf, 0x00, // a0
    0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00, // a8
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xaf, 0x00, // b0
    0x1f, 0x00, 0x98, 0x00, 0xff, 0xff,             // b8 limit, base 0xffff0098
];

/// The firmware image.
pub fn image() -> Vec<u8> {
    let mut rom = vec![0; SIZE];
    rom[..CODE.len()].copy_from_slice(&CODE);
    // jmp to the start of the image; 3 bytes long, and 16-bit addresses wrap.
    let distance = (SIZE - (RESET_VECTOR + 3)) as u16;
    rom[RESET_VECTOR] = 0xe9;
    rom[RESET_VECTOR + 1..RESET_VECTOR + 3].copy_from_slice(&distance.to_le_bytes());
    rom
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reset_vector_leads_to_the_code() {
        let rom = image();
        assert_eq!(rom.len(), SIZE);
        assert_eq!(rom[RESET_VECTOR..RESET_VECTOR + 3], [0xe9, 0x0d, 0x00]);
        assert_eq!(rom[..CODE.len()], CODE);
        assert_eq!(EXIT_STATUS, 85);
    }
}
