//! Changes to a payload that leave the rest of it readable.
//!
//! The length of a record follows its tag, so a byte more or less anywhere costs everything that
//! comes after it. Here records are taken apart first, and put together with their new lengths.

use crate::random::{self, Random};

/// From here on a length follows a tag.
const WITH_LENGTH: u8 = 0x80;
/// Set in the tag of a transition that says nothing of an earlier one.
const FIRST: u8 = 0x10;
/// Tags with a length, the first and the last of each kind.
const TAGS: [u8; 16] = [
    0x80, 0x81, 0x82, 0x90, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c,
];

struct Record {
    tag: u8,
    body: Vec<u8>,
}

/// Changes a payload in one place.
pub(crate) fn mutate(payload: &mut Vec<u8>, max_size: usize, random: &mut Random) {
    let room = max_size.saturating_sub(payload.len());
    let (start, mut records, rest) = take_apart(payload);
    if records.is_empty() || random.once_in(8) {
        random::any(payload, room);
        return;
    }
    let at = random.below(records.len());
    match random.below(8) {
        0 => {
            records.remove(at);
        }
        1 => {
            let record = Record { tag: records[at].tag, body: records[at].body.clone() };
            records.insert(random.below(records.len() + 1), record);
        }
        2 => {
            let other = random.below(records.len());
            records.swap(at, other);
        }
        3 => {
            let tag = if random.once_in(2) {
                TAGS[random.below(TAGS.len())]
            } else {
                u8::try_from(random.below(13)).unwrap_or(1) | (records[at].tag & FIRST)
            };
            records[at].tag = tag;
        }
        4 | 5 => set_number(&mut records[at].body, random),
        _ => random::any(&mut records[at].body, room),
    }
    let mut out = payload[..start].to_vec();
    for record in &records {
        out.push(record.tag);
        if record.tag >= WITH_LENGTH {
            put(&mut out, record.body.len() as u64);
        }
        out.extend_from_slice(&record.body);
    }
    out.extend_from_slice(&payload[payload.len() - rest..]);
    *payload = out;
}

/// Where the records begin, the records, and how many bytes are left at the end.
fn take_apart(payload: &[u8]) -> (usize, Vec<Record>, usize) {
    let mut records = Vec::new();
    let Some(start) = skip(payload, 3) else { return (0, records, payload.len()) };
    let mut left = &payload[start..];
    while let Some((record, len)) = record(left) {
        records.push(record);
        left = &left[len..];
    }
    (start, records, left.len())
}

fn record(bytes: &[u8]) -> Option<(Record, usize)> {
    let (&tag, rest) = bytes.split_first()?;
    let (start, end) = if tag >= WITH_LENGTH {
        let (len, start) = number(rest)?;
        (start, start.checked_add(usize::try_from(len).ok()?)?)
    } else {
        // Its time, which socket, a mask, and a number for each bit of it.
        let mask_at = skip(rest, if tag & FIRST == 0 { 2 } else { 1 })?;
        let (mask, len) = number(&rest[mask_at..])?;
        let numbers = mask_at + len;
        (0, numbers + skip(&rest[numbers..], mask.count_ones() as usize)?)
    };
    let body = rest.get(start..end)?.to_vec();
    Some((Record { tag, body }, 1 + end))
}

/// One number of a body becomes another.
fn set_number(body: &mut Vec<u8>, random: &mut Random) {
    let mut places = Vec::new();
    let mut at = 0;
    while let Some((_, len)) = number(&body[at..]) {
        places.push(at..at + len);
        at += len;
    }
    if !places.is_empty() {
        let place = places.swap_remove(random.below(places.len()));
        let mut bytes = Vec::new();
        put(&mut bytes, random.edge());
        body.splice(place, bytes);
    }
}

/// How many bytes so many numbers have.
fn skip(bytes: &[u8], numbers: usize) -> Option<usize> {
    (0..numbers).try_fold(0, |at, _| number(&bytes[at..]).map(|(_, len)| at + len))
}

/// A number, seven bits a byte, and how many bytes it has.
fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let len = 1 + bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let value =
        bytes[..len].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some((value, len))
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}
