//! Kernel struct fields whose offsets the agent looks up in `/sys/kernel/btf/vmlinux`.
//!
//! rustc emits no CO-RE relocations, so the agent finds each offset by name in the running
//! kernel's BTF and hands the whole table to the kernel program as a constant. No offset is
//! written down anywhere.

/// Offset of a field that this kernel does not have.
pub const MISSING: u32 = u32::MAX;

/// What it means when a kernel lacks the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// tcpwatch cannot work.
    Required,
    /// One column stays empty, or another field serves instead.
    Optional,
}

/// One field: where it is and what it is needed for.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// Kernel struct.
    pub structure: &'static str,
    /// Member path inside it; anonymous members are skipped, dots descend.
    pub path: &'static str,
    /// Size in bytes that the kernel program reads.
    pub size: u32,
    /// Whether tcpwatch works without it.
    pub need: Need,
}

macro_rules! fields {
    ($($variant:ident: $structure:literal $path:literal $size:literal $need:ident,)*) => {
        /// A kernel struct field; the value is its slot in the `OFFSETS` table.
        #[repr(usize)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field {
            $(#[doc = concat!("`", $structure, "::", $path, "`")] $variant,)*
        }

        /// Number of fields.
        pub const FIELD_COUNT: usize = [$(Field::$variant),*].len();

        /// The fields in slot order.
        pub const FIELDS: [FieldSpec; FIELD_COUNT] = [
            $(FieldSpec { structure: $structure, path: $path, size: $size, need: Need::$need },)*
        ];
    };
}

fields! {
    Family: "sock_common" "skc_family" 2 Required,
    State: "sock_common" "skc_state" 1 Required,
    LocalPort: "sock_common" "skc_num" 2 Required,
    RemotePort: "sock_common" "skc_dport" 2 Required,
    LocalV4: "sock_common" "skc_rcv_saddr" 4 Required,
    RemoteV4: "sock_common" "skc_daddr" 4 Required,
    LocalV6: "sock_common" "skc_v6_rcv_saddr" 16 Optional,
    RemoteV6: "sock_common" "skc_v6_daddr" 16 Optional,
    Net: "sock_common" "skc_net.net" 8 Required,
    Cookie: "sock_common" "skc_cookie" 8 Required,
    Type: "sock" "sk_type" 2 Required,
    Protocol: "sock" "sk_protocol" 2 Required,
    Error: "sock" "sk_err" 4 Required,
    Shutdown: "sock" "sk_shutdown" 1 Required,
    LockOwned: "sock" "sk_lock.owned" 4 Required,
    SocketOfSock: "sock" "sk_socket" 8 Required,
    Uid: "sock" "sk_uid" 4 Required,
    Inode: "sock" "sk_ino" 8 Optional,
    Cgroup: "sock" "sk_cgrp_data.cgroup" 8 Optional,
    QueueLen: "sock" "sk_ack_backlog" 4 Required,
    QueueLimit: "sock" "sk_max_ack_backlog" 4 Required,
    SourcePort: "inet_sock" "inet_sport" 2 Required,
    BytesReceived: "tcp_sock" "bytes_received" 8 Required,
    BytesAcked: "tcp_sock" "bytes_acked" 8 Required,
    Srtt: "tcp_sock" "srtt_us" 4 Required,
    Retransmits: "tcp_sock" "total_retrans" 4 Required,
    RcvNxt: "tcp_sock" "rcv_nxt" 4 Required,
    CopiedSeq: "tcp_sock" "copied_seq" 4 Required,
    WriteSeq: "tcp_sock" "write_seq" 4 Required,
    SndUna: "tcp_sock" "snd_una" 4 Required,
    IsMptcp: "tcp_sock" "is_mptcp" 1 Optional,
    AckReceived: "tcp_sock" "rcv_tstamp" 4 Optional,
    DataSent: "tcp_sock" "lsndtime" 4 Optional,
    DataReceived: "inet_connection_sock" "icsk_ack.lrcvtime" 4 Optional,
    SockFlags: "sock_common" "skc_flags" 8 Optional,
    BytesSent: "tcp_sock" "bytes_sent" 8 Optional,
    BytesRetrans: "tcp_sock" "bytes_retrans" 8 Optional,
    SndNxt: "tcp_sock" "snd_nxt" 4 Optional,
    AcceptQueue: "inet_connection_sock" "icsk_accept_queue.rskq_accept_head" 8 Optional,
    RequestSock: "request_sock" "sk" 8 Optional,
    RequestNext: "request_sock" "dl_next" 8 Optional,
    Rto: "inet_connection_sock" "icsk_rto" 4 Optional,
    RttVar: "tcp_sock" "mdev_us" 4 Optional,
    RttMin: "tcp_sock" "rtt_min.s" 24 Optional,
    Mss: "tcp_sock" "mss_cache" 4 Optional,
    Pmtu: "inet_connection_sock" "icsk_pmtu_cookie" 4 Optional,
    RcvMss: "inet_connection_sock" "icsk_ack.rcv_mss" 2 Optional,
    AdvMss: "tcp_sock" "advmss" 2 Optional,
    Cwnd: "tcp_sock" "snd_cwnd" 4 Optional,
    Ssthresh: "tcp_sock" "snd_ssthresh" 4 Optional,
    SegsOut: "tcp_sock" "segs_out" 4 Optional,
    SegsIn: "tcp_sock" "segs_in" 4 Optional,
    DataSegsOut: "tcp_sock" "data_segs_out" 4 Optional,
    DataSegsIn: "tcp_sock" "data_segs_in" 4 Optional,
    Delivered: "tcp_sock" "delivered" 4 Optional,
    LostOut: "tcp_sock" "lost_out" 4 Optional,
    SackedOut: "tcp_sock" "sacked_out" 4 Optional,
    RetransOut: "tcp_sock" "retrans_out" 4 Optional,
    Reordering: "tcp_sock" "reordering" 4 Optional,
    RcvRtt: "tcp_sock" "rcv_rtt_est.rtt_us" 4 Optional,
    RcvSpace: "tcp_sock" "rcvq_space.space" 4 Optional,
    RcvSsthresh: "tcp_sock" "rcv_ssthresh" 4 Optional,
    RcvWnd: "tcp_sock" "rcv_wnd" 4 Optional,
    PacingRate: "sock" "sk_pacing_rate" 8 Optional,
    TimerPending: "inet_connection_sock" "icsk_pending" 1 Optional,
    Backoff: "inet_connection_sock" "icsk_backoff" 1 Optional,
    Retries: "inet_connection_sock" "icsk_retransmits" 1 Optional,
    Probes: "inet_connection_sock" "icsk_probes_out" 1 Optional,
    TimerExpires: "inet_connection_sock" "icsk_retransmit_timer.expires" 8 Optional,
    KeepaliveArmed: "sock" "sk_timer.entry.pprev" 8 Optional,
    KeepaliveExpires: "sock" "sk_timer.expires" 8 Optional,
    Congestion: "inet_connection_sock" "icsk_ca_ops" 8 Optional,
    CongestionName: "tcp_congestion_ops" "name" 16 Optional,
    SndWl1: "tcp_sock" "snd_wl1" 4 Optional,
    SendWindow: "tcp_sock" "snd_wnd" 4 Optional,
    WaitQueue: "sock" "sk_wq" 8 Optional,
    WaitList: "socket_wq" "wait.head.next" 8 Optional,
    WaiterLink: "wait_queue_entry" "entry.next" 8 Optional,
    WaiterPrivate: "wait_queue_entry" "private" 8 Optional,
    EpollWaiter: "eppoll_entry" "wait" 40 Optional,
    EpollItem: "eppoll_entry" "base" 8 Optional,
    EpollFile: "epitem" "ffd.file" 8 Optional,
    EpollEvents: "epitem" "event.events" 4 Optional,
    TimewaitSubstate: "inet_timewait_sock" "tw_substate" 1 Optional,
    SockOfSocket: "socket" "sk" 8 Required,
    SocketInode: "socket_alloc" "vfs_inode.i_ino" 8 Optional,
    NetInode: "net" "ns.inum" 4 Required,
    CgroupNode: "cgroup" "kn" 8 Optional,
    NodeId: "kernfs_node" "id" 8 Optional,
    TaskTgid: "task_struct" "tgid" 4 Required,
    TaskLeader: "task_struct" "group_leader" 8 Required,
    TaskComm: "task_struct" "comm" 16 Required,
    TaskFlags: "task_struct" "flags" 4 Required,
    TaskSignal: "task_struct" "signal" 8 Optional,
    SignalFlags: "signal_struct" "flags" 4 Optional,
    SignalLive: "signal_struct" "live.counter" 4 Optional,
}
