//! What processes said of themselves, as JSON: seldom, of any length, and with more to come.

use serde::{Deserialize, Serialize};

use super::TraceError;
use crate::core::{
    comm::tame,
    container::{self, Container, Names},
    process::{ProcessFacts, Threads},
    time::Timestamp,
};

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Facts {
    pid: u32,
    started_ns: Option<u64>,
    cgroup: Option<String>,
    container: Option<Place>,
    fds: Option<u64>,
    fd_limit: Option<u64>,
    threads: Vec<(u64, char, Option<String>)>,
    frozen: bool,
    threads_unseen: u64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Place {
    id: String,
    runtime: Option<String>,
    pod_uid: Option<String>,
    names: Option<Called>,
}

/// What Kubernetes calls it.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Called {
    namespace: String,
    pod: String,
    container: Option<String>,
}

/// As a JSON object.
pub(super) fn to_json(facts: &ProcessFacts) -> Vec<u8> {
    let place = |container: &Container| Place {
        id: container.id.clone(),
        runtime: container.runtime.map(str::to_owned),
        pod_uid: container.pod_uid.clone(),
        names: container.names.clone().map(|Names { namespace, pod, container }| Called {
            namespace,
            pod,
            container,
        }),
    };
    let facts = Facts {
        pid: facts.pid,
        started_ns: facts.started.map(|at| at.0),
        cgroup: facts.cgroup.clone(),
        container: facts.container.as_ref().map(place),
        fds: facts.fds,
        fd_limit: facts.fd_limit,
        threads: facts.threads.iter().map(|t| (t.count, t.state, t.wait.clone())).collect(),
        frozen: facts.frozen,
        threads_unseen: facts.threads_unseen,
    };
    serde_json::to_vec(&facts).unwrap_or_default()
}

/// From a JSON object; text that could move a cursor is made harmless.
pub(super) fn from_json(at: Timestamp, json: &[u8]) -> Result<ProcessFacts, TraceError> {
    let facts: Facts = serde_json::from_slice(json).map_err(|_| TraceError::Senseless)?;
    let text = |text: Option<String>| text.map(|text| tame(&text));
    let place = |place: Place| Container {
        id: tame(&place.id),
        runtime: place.runtime.and_then(|name| container::runtime(&name)),
        pod_uid: text(place.pod_uid),
        names: place.names.map(|called| Names {
            namespace: tame(&called.namespace),
            pod: tame(&called.pod),
            container: text(called.container),
        }),
    };
    Ok(ProcessFacts {
        pid: facts.pid,
        at,
        started: facts.started_ns.map(Timestamp),
        cgroup: text(facts.cgroup),
        container: facts.container.map(place),
        fds: facts.fds,
        fd_limit: facts.fd_limit,
        threads: facts
            .threads
            .into_iter()
            .filter(|(_, state, _)| state.is_ascii_alphabetic())
            .map(|(count, state, wait)| Threads { count, state, wait: text(wait) })
            .collect(),
        frozen: facts.frozen,
        threads_unseen: facts.threads_unseen,
    })
}
