//! What the processor says of itself.

use core::arch::x86_64::__cpuid;

/// Whether the processor is QEMU's emulation (TCG), and not one that runs programs itself, be it
/// virtual. Source: QEMU, docs/specs and target/i386/cpu.c: leaf 0x40000000 names the hypervisor.
pub fn is_emulated() -> bool {
    const HYPERVISOR_PRESENT: u32 = 1 << 31;
    if __cpuid(1).ecx & HYPERVISOR_PRESENT == 0 {
        return false;
    }
    let leaf = __cpuid(0x4000_0000);
    [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).as_flattened() == b"TCGTCGTCGTCG"
}
