//! Typed loads from kernel structs through the BTF pointers the verifier knows.
//!
//! Offsets come from the `OFFSETS` table, which the agent fills from the running kernel's BTF.
//! The table is frozen, so the verifier sees constants and checks every load against the type
//! of the struct; a load through a null or stale pointer yields 0 instead of faulting.

use core::{arch::asm, ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_kernel};
use tcpwatch_common::{COMM_LEN, FIELD_COUNT, Field, MISSING, SETTING_COUNT, Setting};

#[unsafe(no_mangle)]
static OFFSETS: [u32; FIELD_COUNT] = [MISSING; FIELD_COUNT];

#[unsafe(no_mangle)]
static SETTINGS: [u32; SETTING_COUNT] = [0; SETTING_COUNT];

/// A kernel pointer whose type the verifier knows.
pub type Ptr = *const c_void;

// include/linux/sched.h
const PF_EXITING: u32 = 0x4;
const PF_KTHREAD: u32 = 0x0020_0000;
// include/linux/sched/signal.h
const SIGNAL_GROUP_EXIT: u32 = 0x4;

/// A load-time setting.
#[inline(always)]
pub fn setting(slot: Setting) -> u32 {
    unsafe { core::ptr::read_volatile((&raw const SETTINGS).cast::<u32>().add(slot as usize)) }
}

/// `value & MASK`, in one instruction that the compiler cannot move or leave out.
///
/// The verifier of Linux 6.1 knows no bounds of an `or` of two values (kernel/bpf/verifier.c:
/// adjust_scalar_min_max_vals), so an index made of such is masked right before its use.
#[inline(always)]
pub fn masked<const MASK: u32>(value: usize) -> usize {
    let mut masked = value;
    unsafe { asm!("{0} &= {1}", inout(reg) masked, const MASK) };
    masked
}

#[inline(always)]
fn offset(field: Field) -> u32 {
    unsafe { core::ptr::read_volatile((&raw const OFFSETS).cast::<u32>().add(field as usize)) }
}

/// Whether this kernel has the field.
#[inline(always)]
pub fn has(field: Field) -> bool {
    offset(field) != MISSING
}

/// Loads a field. `T` must have the size that the field's spec names.
#[inline(always)]
pub fn load<T: Copy>(base: Ptr, field: Field) -> T {
    unsafe { core::ptr::read_volatile(base.cast::<u8>().add(offset(field) as usize).cast::<T>()) }
}

/// A pointer that leads some bytes further into the same struct.
#[inline(always)]
pub fn offset_by(base: Ptr, bytes: usize) -> Ptr {
    unsafe { base.cast::<u8>().add(bytes).cast() }
}

/// Loads 16 bytes as two words.
#[inline(always)]
pub fn load16(base: Ptr, field: Field) -> [u8; 16] {
    unsafe {
        let words = base.cast::<u8>().add(offset(field) as usize).cast::<u64>();
        core::mem::transmute([
            core::ptr::read_volatile(words),
            core::ptr::read_volatile(words.add(1)),
        ])
    }
}

/// The address of a field inside a struct that the verifier does not let us load from.
#[inline(always)]
pub fn address(base: Ptr, field: Field) -> Ptr {
    unsafe { base.cast::<u8>().add(offset(field) as usize).cast() }
}

/// Reads at an address. What comes out is a plain number to the verifier, even if it is a pointer.
#[inline(always)]
pub fn read<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    unsafe {
        let size = size_of::<T>() as u32;
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size, address as *const _);
        value.assume_init()
    }
}

/// The address of a field inside a struct that is known by its address alone.
#[inline(always)]
pub fn at(base: u64, field: Field) -> u64 {
    base.wrapping_add(u64::from(offset(field)))
}

/// A process: its id and the name of its main thread.
#[derive(Clone, Copy)]
pub struct Process {
    pub pid: u32,
    pub comm: [u8; COMM_LEN],
    /// 1 if it is ending: what it does now, the kernel does for it.
    pub exiting: u32,
}

impl Process {
    /// Nobody.
    pub const NONE: Self = Self { pid: 0, comm: [0; COMM_LEN], exiting: 0 };
}

/// The process of a task; `None` for a kernel thread.
#[inline(always)]
pub fn process(task: Ptr) -> Option<Process> {
    let flags: u32 = load(task, Field::TaskFlags);
    if flags & PF_KTHREAD != 0 {
        return None;
    }
    let leader: Ptr = load(task, Field::TaskLeader);
    Some(Process {
        pid: load(task, Field::TaskTgid),
        comm: load16(leader, Field::TaskComm),
        exiting: flags / PF_EXITING & ends_with(task),
    })
}

/// 1 if a process ends with this task, should that be ending: all its threads are to end, or it is the last
/// (kernel/exit.c: do_exit). A thread with a descriptor table of its own may end alone, and close what is in
/// it. Arithmetic instead of branches, each of which would double what the verifier explores.
#[inline(always)]
fn ends_with(task: Ptr) -> u32 {
    if !has(Field::TaskSignal) || !has(Field::SignalFlags) || !has(Field::SignalLive) {
        return 1;
    }
    let signal: Ptr = load(task, Field::TaskSignal);
    let none_lives = load::<u32>(signal, Field::SignalLive).wrapping_sub(1) >> 31;
    (load::<u32>(signal, Field::SignalFlags) / SIGNAL_GROUP_EXIT | none_lives) & 1
}

/// The process on this CPU. It is the cause of what happens only where [`crate::transition`]
/// says so.
#[inline(always)]
pub fn current() -> Option<Process> {
    process(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
}
