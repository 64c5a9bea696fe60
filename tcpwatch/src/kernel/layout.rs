//! Offsets of the kernel fields that the kernel program reads, found by name.

use tcpwatch_common::{FIELD_COUNT, FIELDS, Field, FieldSpec, MISSING, Need};

use super::btf::Btf;

/// Fields that newer kernels, and updates of older ones, have elsewhere: a timer got a field of its own,
/// and another took its old place.
const MOVED: [(Field, &str, &str); 3] = [
    (Field::KeepaliveArmed, "inet_connection_sock", "icsk_keepalive_timer.entry.pprev"),
    (Field::KeepaliveExpires, "inet_connection_sock", "icsk_keepalive_timer.expires"),
    (Field::TimerExpires, "sock", "tcp_retransmit_timer.expires"),
];

/// What a socket's storage consists of.
const STORAGE_ELEMENT: &str = "bpf_local_storage_elem";

/// Under this lockdown a program that calls `bpf_probe_read_kernel` is refused
/// (`kernel/trace/bpf_trace.c`). The wait queue needs the call, and the inode before 6.18.
fn lockdown_forbids_probe_reads() -> bool {
    std::fs::read_to_string("/sys/kernel/security/lockdown")
        .is_ok_and(|text| text.contains("[confidentiality]"))
}

/// What the running kernel says of each field.
pub struct Layout {
    /// The table for the kernel program.
    pub offsets: [u32; FIELD_COUNT],
    /// Whether an iterator may walk the storage of sockets.
    ///
    /// Since Linux 7.0 a socket that is freed clears what leads from an element of its storage to it
    /// (`kernel/bpf/bpf_local_storage.c: bpf_selem_unlink_nofail`). The iterator may be showing that
    /// element, and follows the pointer without a look at it (`net/core/bpf_sk_storage.c:
    /// __bpf_sk_storage_map_seq_show`): the kernel oopses. Elements of such kernels have a `state`.
    pub storage_is_walkable: bool,
    /// Where they were looked for.
    specs: [FieldSpec; FIELD_COUNT],
}

impl Layout {
    /// Looks every field up. One of another size than expected counts as missing: reading it
    /// would yield garbage.
    pub fn find(btf: &Btf) -> Self {
        let structs =
            btf.structs(FIELDS.iter().map(|spec| spec.structure).chain([STORAGE_ELEMENT]));
        let mut specs = FIELDS;
        for (field, structure, path) in MOVED {
            if btf.member_of(&structs[structure], path).is_some() {
                let spec = &mut specs[field as usize];
                *spec = FieldSpec { structure, path, ..*spec };
            }
        }
        let offsets = specs.map(|spec| {
            btf.member_of(&structs[spec.structure], spec.path)
                .filter(|member| member.size == spec.size)
                .map_or(MISSING, |member| member.offset)
        });
        let unlinked = btf.member_of(&structs[STORAGE_ELEMENT], "state");
        let mut layout = Self { offsets, storage_is_walkable: unlinked.is_none(), specs };
        if lockdown_forbids_probe_reads() {
            for field in [Field::SocketInode, Field::WaitQueue] {
                layout.offsets[field as usize] = MISSING;
            }
        }
        layout
    }

    /// Each field with its offset.
    pub fn fields(&self) -> impl Iterator<Item = (&FieldSpec, Option<u32>)> {
        self.specs.iter().zip(self.offsets).map(|(spec, at)| (spec, (at != MISSING).then_some(at)))
    }

    /// Fields without which tcpwatch cannot work, and which this kernel lacks.
    pub fn missing(&self) -> Vec<&FieldSpec> {
        self.fields()
            .filter(|(spec, at)| at.is_none() && spec.need == Need::Required)
            .map(|(spec, _)| spec)
            .collect()
    }
}
