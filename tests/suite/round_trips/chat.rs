//! Conversations and messages.

use chancery::{MessageDraft, NewMessage, PageRequest};
use chrono::Utc;
use serde_json::json;

use super::{Meter, count, stream};
use crate::support::{conversation, messages, user};

pub async fn measure(meter: &mut Meter) {
    let setup = meter.setup.clone();
    let owner = user(&setup).await.id;
    let kept = conversation(&setup).await;
    let message = setup.messages().create(NewMessage::user(kept.id, "Why?")).await.unwrap();
    let page = PageRequest::first(10);

    count!(meter, conversations().create(owner, Some("Rice speech")));
    let turn = || vec![MessageDraft::user("Why?"), MessageDraft::assistant("Because.")];
    count!(meter, conversations().create_with_messages(owner, None, turn()));
    count!(meter, conversations().get_by_id(kept.id));
    count!(meter, conversations().list_by_user(kept.user_id, 10, 0));
    count!(meter, conversations().page_by_user(kept.user_id, page));
    count!(meter, conversations().page_with_last_message(kept.user_id, page));
    count!(meter, conversations().page_with_message_count(kept.user_id, page));
    count!(meter, conversations().list_recent(10, 0));
    count!(meter, conversations().update_title(kept.id, Some("Moon")));
    count!(meter, conversations().delete(conversation(&setup).await.id));

    count!(meter, messages().create(NewMessage::user(kept.id, "Why?")));
    count!(meter, messages().create_many(messages(&kept, 100)));
    count!(meter, messages().get_by_id(message.id));
    count!(meter, messages().list_by_conversation(kept.id, 10, 0));
    count!(meter, messages().get_last_n(kept.id, 10));
    stream!(meter, messages().stream_by_conversation(kept.id));
    count!(meter, messages().page_by_conversation(kept.id, page));
    count!(meter, messages().page_back_by_conversation(kept.id, page));
    count!(meter, messages().list_by_metadata(kept.user_id, &json!({}), 10));
    count!(meter, messages().count_since(Utc::now()));
    count!(meter, messages().update(message.id, "Because.", &json!({})));
    count!(meter, messages().delete(message.id));
}
