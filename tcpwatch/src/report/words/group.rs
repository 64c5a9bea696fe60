//! A group of connections, in words.

use super::grouped;
use crate::report::model::Group;

/// Whose connections they are.
pub(in crate::report) fn process(group: &Group) -> String {
    match &group.comm {
        Some(comm) => comm.clone(),
        None if group.end == "other" => "others".to_owned(),
        None => "nobody known".to_owned(),
    }
}

/// `-> 10.0.0.9:5432`, `at :80`.
pub(in crate::report) fn service(group: &Group) -> String {
    let word = match group.role {
        Some("client") => "to",
        Some(_) => "at",
        None => "with",
    };
    match group.folded {
        0 => format!("{word} {}", group.end),
        folded => format!("{word} others ({})", grouped(folded)),
    }
}
