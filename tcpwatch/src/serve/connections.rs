//! Connections of clients, of which there may be so many. One more takes the place of one that has not
//! been admitted yet, the oldest of whoever has most of those: so who connects and stays silent, or
//! sends wrong passwords, keeps nobody else out.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::AbortHandle;

/// Where a client is: its address, or the network that one client of IPv6 usually has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        const NETWORK: u128 = u128::MAX << 64;
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// Whether a client has sent a request that it may send.
#[derive(Clone, Debug, Default)]
pub(super) struct Admitted(Arc<AtomicBool>);

impl Admitted {
    /// It has.
    pub(super) fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn already(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Connection {
    source: Source,
    admitted: Admitted,
    task: AbortHandle,
}

/// Open connections, the oldest first.
pub(super) struct Connections {
    most: usize,
    open: VecDeque<Connection>,
}

impl Connections {
    /// None yet, and never more than this.
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: VecDeque::new() }
    }

    /// Makes room for one more.
    pub(super) fn make_room(&mut self) {
        self.open.retain(|connection| !connection.task.is_finished());
        if self.open.len() >= self.most
            && let Some(connection) = self.open.remove(self.least_wanted())
        {
            connection.task.abort();
        }
    }

    /// The oldest that was not admitted, of the source with most of those; else the oldest.
    fn least_wanted(&self) -> usize {
        let strangers = || self.open.iter().enumerate().filter(|(_, it)| !it.admitted.already());
        let mut of_source: HashMap<Source, usize> = HashMap::new();
        for (_, connection) in strangers() {
            *of_source.entry(connection.source).or_default() += 1;
        }
        let most = of_source.values().max();
        let mut crowd = strangers().filter(|(_, it)| of_source.get(&it.source) == most);
        crowd.next().map_or(0, |(at, _)| at)
    }

    /// Takes one in.
    pub(super) fn add(&mut self, source: Source, admitted: Admitted, task: AbortHandle) {
        self.open.push_back(Connection { source, admitted, task });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().unwrap().into()
    }

    /// Which connections are ended as one after the other comes, of those that there is no room for.
    async fn ended(room: usize, come: &[(&str, bool)]) -> Vec<bool> {
        let mut connections = Connections::new(room);
        let mut tasks = Vec::new();
        for &(from, may) in come {
            let admitted = Admitted::default();
            if may {
                admitted.now();
            }
            let task = tokio::spawn(std::future::pending::<()>());
            connections.make_room();
            connections.add(source(from), admitted, task.abort_handle());
            tasks.push(task);
        }
        tokio::task::yield_now().await;
        tasks.iter().map(tokio::task::JoinHandle::is_finished).collect()
    }

    #[tokio::test]
    async fn the_oldest_stranger_goes_first() {
        let come = [true, false, true, true, true].map(|may| ("192.0.2.1", may));
        assert_eq!(ended(3, &come).await, [true, true, false, false, false]);
    }

    #[tokio::test]
    async fn a_crowd_makes_room_for_others() {
        let [one, crowd] = [("192.0.2.1", false), ("192.0.2.2", false)];
        let come = [one, crowd, crowd, crowd, ("192.0.2.3", false)];
        assert_eq!(ended(3, &come).await, [false, true, true, false, false]);
    }

    #[test]
    fn a_client_of_ipv6_is_its_network() {
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1:2:3"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }
}
