//! Maps, and the few steps every program takes with them.

use core::{arch::asm, ffi::c_void, ptr::null};

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    helpers::generated::{bpf_get_smp_processor_id, bpf_ringbuf_query, bpf_sk_storage_get},
    macros::btf_map,
};
use tcpwatch_common::{
    COMM_LEN, COUNTER_COUNT, Counter, Field, PASS_SETTING_COUNT, PassSetting, RawObserved,
    RawTransition, Setting, flag, how, tally::TALLY_LEN,
};

use crate::kernel::{Ptr, load, setting};

const BPF_MAP_TYPE_SK_STORAGE: usize = 24;
const BPF_SK_STORAGE_GET_F_CREATE: u64 = 1;
const BPF_RB_AVAIL_DATA: u64 = 0;
const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;
/// How many records go by between two looks at how full the ring is (a power of two).
const LOOK_EVERY: u64 = 64;

const MAX_PIDS: usize = 4096;
const MAX_NETNS: usize = 1024;
const MAX_LISTENING: usize = 1024;
const PORT_WORDS: usize = 65_536 / 64;

#[btf_map]
pub static EVENTS: RingBuf<RawTransition, { 16 << 20 }> = RingBuf::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, COUNTER_COUNT> = PerCpuArray::new();
#[btf_map]
static TALLY: PerCpuArray<[u64; TALLY_LEN], 1> = PerCpuArray::new();
#[btf_map]
static NEXT_ID: PerCpuArray<u64, 1> = PerCpuArray::new();
#[btf_map]
pub static PIDS: HashMap<u32, u8, MAX_PIDS> = HashMap::new();
#[btf_map]
pub static NETNS: HashMap<u32, u8, MAX_NETNS> = HashMap::new();
/// Ids of the MPTCP sockets on which threads call `listen` just now, by thread.
#[btf_map]
pub static LISTENING: HashMap<u64, u64, MAX_LISTENING> = HashMap::new();
#[btf_map]
pub static LOCAL_PORTS: Array<u64, PORT_WORDS> = Array::new();
#[btf_map]
pub static REMOTE_PORTS: Array<u64, PORT_WORDS> = Array::new();
#[btf_map]
static PASS: Array<u32, PASS_SETTING_COUNT> = Array::new();
#[btf_map]
static SCRATCH: PerCpuArray<RawObserved, 1> = PerCpuArray::new();

/// What we remember of a socket. It lives in socket storage, so it is freed with the socket and
/// an accepted child starts with a copy of its listener's.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Remembered {
    /// Our id, 0 in fresh storage.
    pub id: u64,
    /// Id of the listener.
    pub listener: u64,
    /// Born, ns; 0 if before we looked.
    pub born_ns: u64,
    /// Entered the present state, ns; 0 if before we looked.
    pub entered_ns: u64,
    /// Owner.
    pub owner_pid: u32,
    /// How the owner is known (`tcpwatch_common::how`).
    pub owner_how: u8,
    /// `WATCHED`, `PASSIVE`, `ACTIVE` of `tcpwatch_common::flag`.
    pub flags: u8,
    /// Local port while it had one.
    pub local_port: u16,
    /// Owner's name.
    pub owner_comm: [u8; COMM_LEN],
    /// The socket's cookie; 0 if it is not known yet. An accepted child whose birth no program saw still has
    /// its listener's here.
    pub cookie: u64,
    /// The change that the first program has told, for the others; 0 if none.
    pub told: u8,
    /// The change that the second program has seen, for the last; 0 if none.
    pub seen: u8,
    /// The state after the last change seen; 0 if none was. Another one before the next change
    /// means that a change was missed, and then `entered_ns` says nothing.
    pub state: u8,
    /// Of the change at hand: `MISSED` of `tcpwatch_common::flag` if one before it was seen by no program.
    pub missed: u8,
    /// The last scan that found it with an fd.
    pub pass: u32,
    /// Ports of an earlier connection of an MPTCP socket, until this one has others.
    pub stale_ports: u32,
    /// 1 if its addresses are those of an earlier connection.
    pub stale: u8,
    /// Of the change at hand: 1 if the task that made it disconnected the socket.
    pub disconnects: u8,
    /// 1 if some processes are watched and a transition of it has passed: then all that follow pass, until it is
    /// opened anew.
    pub passed: u8,
    pub reserved: u8,
}

impl Remembered {
    /// Nothing is known yet.
    pub const NEW: Self = Self {
        id: 0,
        listener: 0,
        born_ns: 0,
        entered_ns: 0,
        owner_pid: 0,
        owner_how: how::UNKNOWN,
        flags: 0,
        local_port: 0,
        owner_comm: [0; COMM_LEN],
        cookie: 0,
        told: 0,
        seen: 0,
        state: 0,
        missed: 0,
        pass: 0,
        stale_ports: 0,
        stale: 0,
        disconnects: 0,
        passed: 0,
        reserved: 0,
    };

    /// Whether this is what was remembered of another socket: of its listener, as no program saw the birth.
    #[inline(always)]
    pub fn is_of_another(&self, sk: Ptr) -> bool {
        self.cookie != 0 && self.cookie != load::<u64>(sk, Field::Cookie)
    }

    /// Makes what was copied from a listener the child's own, which has no id yet.
    #[inline(always)]
    pub fn become_child(&mut self) {
        self.listener = self.id;
        self.id = 0;
        self.born_ns = 0;
        self.entered_ns = 0;
        self.passed = 0;
        self.flags = flag::PASSIVE;
        if self.owner_how != how::UNKNOWN {
            self.owner_how = how::LISTENER;
        }
        self.cookie = 0;
        self.pass = 0;
    }

    /// Gives the socket an id, unless it has one of its own.
    #[inline(always)]
    pub fn identify(&mut self, sk: Ptr) {
        /// A state that no socket is in: the next transition shows that some were missed.
        const UNSEEN: u8 = 15;
        if self.is_of_another(sk) {
            self.become_child();
            self.state = UNSEEN;
        }
        if self.id == 0 {
            self.id = new_id();
        }
    }
}

/// Flags are `BPF_F_NO_PREALLOC | BPF_F_CLONE`, for which aya-ebpf's own type has no room.
#[repr(C)]
struct SocketStorage {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE],
    key: *const i32,
    value: *const Remembered,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; 1 | 512],
}

// SAFETY: the fields are placeholders that the loader reads from BTF; nothing dereferences them.
unsafe impl Sync for SocketStorage {}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".maps")]
static SOCKETS: SocketStorage = SocketStorage {
    r#type: null(),
    key: null(),
    value: null(),
    max_entries: null(),
    map_flags: null(),
};

/// Where an iterator makes a record that is too large for its stack. One iterator runs at a time.
#[inline(always)]
pub fn scratch() -> Option<&'static mut RawObserved> {
    SCRATCH.get_ptr_mut(0).and_then(|record| unsafe { record.as_mut() })
}

/// The socket's storage, created if need be; `None` when the kernel has no memory for it.
#[inline(always)]
pub fn remembered(sk: Ptr) -> Option<&'static mut Remembered> {
    let map: *mut c_void = (&raw const SOCKETS).cast_mut().cast();
    unsafe {
        bpf_sk_storage_get(
            map,
            sk.cast_mut().cast(),
            core::ptr::null_mut(),
            BPF_SK_STORAGE_GET_F_CREATE,
        )
        .cast::<Remembered>()
        .as_mut()
    }
}

/// Adds atomically and returns the old value. A softirq on the same CPU may interrupt an iterator
/// between the load and the store of a plain increment; rustc has no atomics for this target.
#[inline(always)]
pub fn fetch_add(slot: *mut u64, amount: u64) -> u64 {
    let mut value = amount;
    unsafe {
        asm!("{0} = atomic_fetch_add((u64 *)({1} + 0), {0})", inout(reg) value, in(reg) slot)
    };
    value
}

/// A socket id that no other socket gets until the program is loaded anew.
#[inline(always)]
pub fn new_id() -> u64 {
    let Some(slot) = NEXT_ID.get_ptr_mut(0) else { return 0 };
    let turn = fetch_add(slot, 1);
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
    turn * u64::from(setting(Setting::Cpus)) + cpu + 1
}

/// Adds one to a counter of this CPU and returns what it was.
#[inline(always)]
pub fn count(counter: Counter) -> u64 {
    match COUNTERS.get_ptr_mut(counter as u32) {
        Some(slot) => fetch_add(slot, 1),
        None => 0,
    }
}

/// This CPU's counts.
#[inline(always)]
pub fn tally() -> Option<*mut [u64; TALLY_LEN]> {
    TALLY.get_ptr_mut(0)
}

/// Submit flags for the `nth` record of this CPU: the agent drains on a tick and is woken only
/// when the ring fills. Waking for every record would cost more than all the rest.
#[inline(always)]
pub fn wakeup(nth: u64) -> u64 {
    if nth % LOOK_EVERY == 0 {
        let map: *mut c_void = (&raw const EVENTS).cast_mut().cast();
        let waiting = unsafe { bpf_ringbuf_query(map, BPF_RB_AVAIL_DATA) };
        if waiting > u64::from(setting(Setting::WakeAbove)) {
            return BPF_RB_FORCE_WAKEUP;
        }
    }
    BPF_RB_NO_WAKEUP
}

/// A setting of the present iterator pass.
#[inline(always)]
pub fn pass_setting(slot: PassSetting) -> u32 {
    PASS.get(slot as u32).copied().unwrap_or(0)
}
