//! Conversations and their messages.

mod conversation;
mod message;

pub use conversation::{
    Conversation, ConversationId, ConversationRepository, ConversationSummary, LastMessage,
};
pub use message::{Message, MessageId, MessageRepository, NewMessage, Role};
