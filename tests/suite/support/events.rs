//! What was logged.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

/// The events of this thread, at every level, from when it is made until it is dropped.
pub struct Events {
    seen: Arc<Mutex<Vec<(Level, String, String)>>>,
    _guard: DefaultGuard,
}

impl Events {
    pub fn capture() -> Self {
        let seen = Arc::default();
        let guard = tracing::subscriber::set_default(Recorder(Arc::clone(&seen)));
        Self { seen, _guard: guard }
    }

    /// Level, target and all fields of each event so far; they are forgotten.
    pub fn take(&self) -> Vec<(Level, String, String)> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

struct Recorder(Arc<Mutex<Vec<(Level, String, String)>>>);

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text(String::new());
        span.record(&mut text);
        let (level, target) = (*span.metadata().level(), span.metadata().target().to_owned());
        self.0.lock().unwrap().push((level, target, text.0));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let (level, target) = (*event.metadata().level(), event.metadata().target().to_owned());
        self.0.lock().unwrap().push((level, target, text.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}
