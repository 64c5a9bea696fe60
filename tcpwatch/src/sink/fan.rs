//! Several sinks as one.

use std::io;

use crate::{
    core::{
        record::{Census, Record},
        time::ClockMark,
    },
    sink::Sink,
};

/// Hands everything to the user's output first and then to others. An error of the output ends the
/// run, as it would alone; one of the others only ends that other.
pub struct Fan<'a> {
    output: &'a mut dyn Sink,
    others: Vec<&'a mut dyn Sink>,
}

impl<'a> Fan<'a> {
    /// The user's output, and what else gets every record.
    pub fn new(output: &'a mut dyn Sink, others: Vec<&'a mut dyn Sink>) -> Self {
        Self { output, others }
    }

    fn all(&mut self, mut give: impl FnMut(&mut dyn Sink) -> io::Result<()>) -> io::Result<()> {
        give(self.output)?;
        self.others.retain_mut(|sink| match give(*sink) {
            Ok(()) => true,
            Err(error) => {
                log::warn!("one output beside the first has failed and gets no more: {error}");
                false
            }
        });
        Ok(())
    }
}

impl Sink for Fan<'_> {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        self.all(|sink| sink.record(clock, record))
    }

    fn census(&mut self, clock: &ClockMark, census: &Census) -> io::Result<()> {
        self.all(|sink| sink.census(clock, census))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.all(|sink| sink.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::record::Lost;

    /// Takes so many records and then fails.
    struct Takes(u64, u64);

    impl Sink for Takes {
        fn record(&mut self, _: &ClockMark, _: &Record<'_>) -> io::Result<()> {
            if self.0 == self.1 {
                return Err(io::Error::other("full"));
            }
            self.0 += 1;
            Ok(())
        }
    }

    const LOST: Record<'_> = Record::Lost(Lost {
        at: crate::core::time::Timestamp(0),
        place: crate::core::record::Place::Ring,
        count: 1,
        total: 1,
    });

    #[test]
    fn only_the_first_can_end_the_run() {
        let (mut output, mut other, mut third) = (Takes(0, 3), Takes(0, 1), Takes(0, 9));
        let mut fan = Fan::new(&mut output, vec![&mut other, &mut third]);
        for _ in 0..3 {
            fan.record(&ClockMark::default(), &LOST).unwrap();
        }
        assert!(fan.record(&ClockMark::default(), &LOST).is_err());
        assert_eq!((output.0, other.0, third.0), (3, 1, 3), "the output comes first");
    }
}
