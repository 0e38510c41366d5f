//! What is said of a message to write one.

use serde_json::{Value, json};
use uuid::Uuid;

use super::conversation::ConversationId;
use super::message::{MessageId, Role};
use crate::db::id::debug_fields;
use crate::db::{Result, input};

/// A message to be written.
///
/// ```
/// use chancery::{ConversationId, NewMessage};
/// use serde_json::json;
///
/// let id = ConversationId::new();
/// let question = NewMessage::user(id, "Why the Moon?");
/// let answer = NewMessage::assistant(id, "Because it is hard.").metadata(json!({"model": "m-1"}));
/// ```
#[derive(Clone, PartialEq)]
pub struct NewMessage {
    /// Its identifier; one is made unless said. See [`NewMessage::id`].
    pub id: Option<MessageId>,
    /// Where.
    pub conversation_id: ConversationId,
    /// By whom.
    pub role: Role,
    /// At most [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
    pub content: String,
    /// At most [`MAX_JSON_DEPTH`](crate::MAX_JSON_DEPTH) levels; `{}` unless said.
    pub metadata: Value,
}

debug_fields!(NewMessage { conversation_id, role });

impl NewMessage {
    /// By anyone.
    pub fn new(conversation_id: ConversationId, role: Role, content: impl Into<String>) -> Self {
        Self { id: None, conversation_id, role, content: content.into(), metadata: json!({}) }
    }

    /// By the person.
    pub fn user(conversation_id: ConversationId, content: impl Into<String>) -> Self {
        Self::new(conversation_id, Role::User, content)
    }

    /// By the model.
    pub fn assistant(conversation_id: ConversationId, content: impl Into<String>) -> Self {
        Self::new(conversation_id, Role::Assistant, content)
    }

    /// By the application.
    pub fn system(conversation_id: ConversationId, content: impl Into<String>) -> Self {
        Self::new(conversation_id, Role::System, content)
    }

    /// With notes.
    pub fn metadata(mut self, metadata: Value) -> Self {
        self.metadata = metadata;
        self
    }

    /// With an identifier of the caller's: the key that makes writing it idempotent. Sent once more
    /// after a lost answer, the message is refused as
    /// [`MessagesPkey`](crate::Constraint::MessagesPkey): it was stored the first time.
    ///
    /// Messages of one transaction are ordered by their identifiers: make them in order.
    pub fn id(mut self, id: MessageId) -> Self {
        self.id = Some(id);
        self
    }

    /// What is checked before it is stored: for callers that do something costly in between.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput).
    pub fn check(&self) -> Result<()> {
        self.size().map(drop)
    }

    /// Its size in bytes, if it can be stored.
    pub(super) fn size(&self) -> Result<usize> {
        check(&self.content, &self.metadata)
    }

    /// Where it goes, and the rest.
    pub(super) fn into_draft(self) -> (ConversationId, MessageDraft) {
        let Self { id, conversation_id, role, content, metadata } = self;
        (conversation_id, MessageDraft { id, role, content, metadata })
    }
}

fn check(content: &str, metadata: &Value) -> Result<usize> {
    input::long_text("content", content)?;
    Ok(content.len() + input::json_size("metadata", metadata)?)
}

/// A message of a conversation that is to begin:
/// [`create_with_messages`](super::ConversationRepository::create_with_messages).
///
/// ```
/// use chancery::MessageDraft;
/// use serde_json::json;
///
/// let question = MessageDraft::user("Why the Moon?");
/// let answer = MessageDraft::assistant("Because it is hard.").metadata(json!({"model": "m-1"}));
/// ```
#[derive(Clone, PartialEq)]
pub struct MessageDraft {
    /// Its identifier; one is made unless said. See [`NewMessage::id`].
    pub id: Option<MessageId>,
    /// By whom.
    pub role: Role,
    /// At most [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
    pub content: String,
    /// At most [`MAX_JSON_DEPTH`](crate::MAX_JSON_DEPTH) levels; `{}` unless said.
    pub metadata: Value,
}

debug_fields!(MessageDraft { role });

impl MessageDraft {
    /// By anyone.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { id: None, role, content: content.into(), metadata: json!({}) }
    }

    /// By the person.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// By the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// By the application: instructions to the model.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// With notes.
    pub fn metadata(mut self, metadata: Value) -> Self {
        self.metadata = metadata;
        self
    }

    /// With an identifier of the caller's: see [`NewMessage::id`].
    pub fn id(mut self, id: MessageId) -> Self {
        self.id = Some(id);
        self
    }
}

/// Messages as a statement is given them.
#[derive(Default)]
pub(super) struct MessageColumns {
    pub ids: Vec<Uuid>,
    pub roles: Vec<Role>,
    pub contents: Vec<String>,
    pub metadata: Vec<Value>,
}

impl MessageColumns {
    /// Checks them all.
    pub fn new(drafts: Vec<MessageDraft>) -> Result<Self> {
        let mut bytes = 0;
        input::each("messages", &drafts, |draft| {
            bytes += check(&draft.content, &draft.metadata)?;
            Ok(())
        })?;
        input::statement_size("messages", bytes)?;
        Ok(drafts.into())
    }

    pub fn role_names(&self) -> Vec<&'static str> {
        self.roles.iter().map(|role| role.as_str()).collect()
    }
}

impl From<Vec<MessageDraft>> for MessageColumns {
    fn from(drafts: Vec<MessageDraft>) -> Self {
        let mut columns = Self::default();
        for draft in drafts {
            columns.ids.push(draft.id.unwrap_or_else(MessageId::new).as_uuid());
            columns.roles.push(draft.role);
            columns.contents.push(draft.content);
            columns.metadata.push(draft.metadata);
        }
        columns
    }
}
