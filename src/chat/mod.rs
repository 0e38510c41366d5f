//! Conversations and their messages.

mod conversation;
mod conversation_writes;
mod message;
mod message_writes;
mod new_message;

pub use conversation::{
    Conversation, ConversationId, ConversationOverview, ConversationRepository,
    ConversationSummary, ConversationWithMessages, LastMessage,
};
pub use message::{Message, MessageId, MessageRepository, Role};
pub use new_message::{MessageDraft, NewMessage};
