//! Conversations and their messages.

mod conversation;
mod message;
mod new_message;

pub use conversation::{
    Conversation, ConversationId, ConversationOverview, ConversationRepository,
    ConversationSummary, ConversationWithMessages, LastMessage,
};
pub use message::{Message, MessageId, MessageRepository, Role};
pub use new_message::{MessageDraft, NewMessage};
