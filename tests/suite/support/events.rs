//! What was logged.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, Interest};
use tracing::{Event, Level, Metadata, Subscriber};

/// The events of this thread, at every level, from when it is made until it is dropped.
pub struct Events {
    seen: Arc<Mutex<Vec<(Level, String, String)>>>,
    _guard: DefaultGuard,
}

impl Events {
    pub fn capture() -> Self {
        let seen = Arc::default();
        let guard = listen(Recorder(Arc::clone(&seen)));
        Self { seen, _guard: guard }
    }

    /// Level, target and all fields of each event so far; they are forgotten.
    pub fn take(&self) -> Vec<(Level, String, String)> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// Has a subscriber told of what this thread logs.
pub fn listen(subscriber: impl Subscriber + Send + Sync) -> DefaultGuard {
    static NOBODY: Once = Once::new();
    NOBODY.call_once(|| tracing::subscriber::set_global_default(Nobody).unwrap());
    tracing::subscriber::set_default(subscriber)
}

/// Listens where nobody else does. While a single subscriber exists, the thread that comes by a log
/// statement first decides for all whether it is ever listened to.
struct Nobody;

impl Subscriber for Nobody {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
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
