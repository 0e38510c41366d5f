//! What is said of a transcript to store or change one.

use serde_json::{Value, json};

use crate::db::id::debug_fields;
use crate::db::{Patch, Result, input};
use crate::identity::UserId;

/// A transcript to be stored.
#[derive(Clone, PartialEq)]
pub struct NewTranscript {
    /// Who loads it.
    pub user_id: UserId,
    /// 1 to 50 characters.
    pub youtube_video_id: String,
    /// At most 500 characters.
    pub title: Option<String>,
    /// At most 255 characters.
    pub channel_name: Option<String>,
    /// Seconds, not negative.
    pub duration: Option<i32>,
    /// At most [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
    pub transcript_text: String,
    /// At most [`MAX_JSON_DEPTH`](crate::MAX_JSON_DEPTH) levels; `{}` unless said.
    pub metadata: Value,
}

debug_fields!(NewTranscript { user_id, duration });

impl NewTranscript {
    /// With what every transcript has.
    pub fn new(
        user_id: UserId,
        youtube_video_id: impl Into<String>,
        transcript_text: impl Into<String>,
    ) -> Self {
        Self {
            user_id,
            youtube_video_id: youtube_video_id.into(),
            title: None,
            channel_name: None,
            duration: None,
            transcript_text: transcript_text.into(),
            metadata: json!({}),
        }
    }

    /// With a title.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// With the channel's name.
    pub fn channel_name(mut self, name: impl Into<String>) -> Self {
        self.channel_name = Some(name.into());
        self
    }

    /// With a length, in seconds.
    pub fn duration(mut self, seconds: i32) -> Self {
        self.duration = Some(seconds);
        self
    }

    /// With notes.
    pub fn metadata(mut self, metadata: Value) -> Self {
        self.metadata = metadata;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        input::name("youtube_video_id", &self.youtube_video_id, 50)?;
        input::optional_text("title", self.title.as_deref(), 500)?;
        input::optional_text("channel_name", self.channel_name.as_deref(), 255)?;
        check_duration(self.duration)?;
        input::long_text("transcript_text", &self.transcript_text)?;
        input::json("metadata", &self.metadata)
    }
}

fn check_duration(seconds: Option<i32>) -> Result<()> {
    seconds.map_or(Ok(()), |s| input::range("duration", s.into(), 0, i32::MAX.into()))
}

/// What to change of a transcript; see [`Patch`]. The text stays: chunks were cut from it.
#[derive(Clone, Default)]
pub struct TranscriptPatch {
    /// At most 500 characters.
    pub title: Patch<Option<String>>,
    /// At most 255 characters.
    pub channel_name: Patch<Option<String>>,
    /// Seconds, not negative.
    pub duration: Patch<Option<i32>>,
    /// At most [`MAX_JSON_DEPTH`](crate::MAX_JSON_DEPTH) levels.
    pub metadata: Patch<Value>,
}

debug_fields!(TranscriptPatch { duration });

impl TranscriptPatch {
    pub(super) fn check(&self) -> Result<()> {
        input::optional_text("title", self.title.set_text(), 500)?;
        input::optional_text("channel_name", self.channel_name.set_text(), 255)?;
        check_duration(self.duration.as_ref().copied().flatten())?;
        self.metadata.as_ref().map_or(Ok(()), |v| input::json("metadata", v))
    }
}
