//! Conversations. `updated_at` is the time of the newest message: a trigger keeps it.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::message::{Message, MessageId, Role};
use crate::db::id::{debug_fields, id};
use crate::db::owner::by_owner;
use crate::db::page::{List, limit_offset};
use crate::db::{Page, PageRequest, Result, UnreadableRow, rows};
use crate::identity::UserId;
use crate::repositories::{Access, owned_by, repository};

id!(
    /// Identifies a [`Conversation`].
    ConversationId
);

/// A conversation.
#[derive(Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct Conversation {
    /// Its identifier.
    pub id: ConversationId,
    /// Whose it is.
    pub user_id: UserId,
    /// What it is about.
    pub title: Option<String>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When its newest message was written, or it was last changed.
    pub updated_at: DateTime<Utc>,
}

debug_fields!(Conversation { id, user_id, created_at, updated_at });

/// A conversation as a list shows it.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConversationSummary {
    /// The conversation.
    #[serde(flatten)]
    pub conversation: Conversation,
    /// Its newest message; none while it has no messages, and when this version can't read it: its
    /// role is one that a newer version knows.
    pub last_message: Option<LastMessage>,
}

debug_fields!(ConversationSummary { conversation, last_message });

/// A conversation as a list shows it that also counts.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConversationOverview {
    /// The conversation and its newest message.
    #[serde(flatten)]
    pub summary: ConversationSummary,
    /// How many messages it has.
    pub message_count: i64,
}

debug_fields!(ConversationOverview { summary, message_count });

/// The newest message of a conversation, without its metadata.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LastMessage {
    /// Its identifier.
    pub id: MessageId,
    /// Who wrote it.
    pub role: Role,
    /// What it says.
    pub content: String,
    /// When it was written.
    pub created_at: DateTime<Utc>,
}

debug_fields!(LastMessage { id, role, created_at });

/// A conversation with the messages that it began with.
#[derive(Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ConversationWithMessages {
    /// The conversation.
    #[serde(flatten)]
    pub conversation: Conversation,
    /// Its messages, oldest first.
    pub messages: Vec<Message>,
}

debug_fields!(ConversationWithMessages { conversation, messages });

repository!(
    /// Conversations: [`Database::conversations`](crate::Database::conversations).
    ConversationRepository
);

owned_by!(ConversationRepository);

impl<A: Access> ConversationRepository<'_, A> {
    /// The conversation with this identifier.
    pub async fn get_by_id(self, id: ConversationId) -> Result<Option<Conversation>> {
        Ok(by_owner!(
            self.conn.owner(),
            query_as!(
                Conversation,
                "select id, user_id, title, created_at, updated_at from conversations where id = $1"
                    + owned(" and user_id = $2"),
                id.as_uuid(),
            )
            .fetch_optional(self.conn.repeatable())
            .await
        )?)
    }

    /// A user's conversations, latest activity first. For long lists use
    /// [`page_by_user`](Self::page_by_user): an offset reads what it skips.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list_by_user(
        self,
        user_id: UserId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Conversation>> {
        self.conn.check_owner(user_id)?;
        let (limit, offset) = limit_offset(limit, offset)?;
        Ok(sqlx::query_as!(
            Conversation,
            "select id, user_id, title, created_at, updated_at
               from conversations
              where user_id = $1
              order by updated_at desc, id desc
              limit $2 offset $3",
            user_id.as_uuid(),
            limit,
            offset,
        )
        .fetch_all(self.conn.repeatable())
        .await?)
    }

    /// A page of a user's conversations, latest activity first.
    ///
    /// A conversation that is spoken in while a client pages moves to the front: it may be met twice,
    /// or not at all after its old place was passed.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a size outside of 1 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE).
    pub async fn page_by_user(
        self,
        user_id: UserId,
        page: PageRequest,
    ) -> Result<Page<Conversation>> {
        self.conn.check_owner(user_id)?;
        let list = list_of(user_id);
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place(list)?;
        let items = sqlx::query_as!(
            Conversation,
            "select id, user_id, title, created_at, updated_at
               from conversations
              where user_id = $1
                and (updated_at, id) < (coalesce($2::timestamptz, 'infinity'),
                                        coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
              order by updated_at desc, id desc
              limit $4",
            user_id.as_uuid(),
            before,
            before_id,
            rows,
        )
        .fetch_all(self.conn.repeatable())
        .await?;
        Ok(Page::new(&page, list, items, |c| (c.updated_at, c.id.as_uuid())))
    }

    /// [`page_by_user`](Self::page_by_user), each with its newest message: the list that a chat
    /// application opens with, in one statement.
    ///
    /// # Errors
    ///
    /// As [`page_by_user`](Self::page_by_user).
    pub async fn page_with_last_message(
        self,
        user_id: UserId,
        page: PageRequest,
    ) -> Result<Page<ConversationSummary>> {
        self.conn.check_owner(user_id)?;
        let list = list_of(user_id);
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place(list)?;
        let items: Vec<_> = sqlx::query!(
            r#"select c.id, c.user_id, c.title, c.created_at, c.updated_at,
                      m.id as "message_id?", m.role as "role?: String", m.content as "content?",
                      m.created_at as "written_at?"
                 from (select id, user_id, title, created_at, updated_at
                         from conversations
                        where user_id = $1
                          and (updated_at, id) < (coalesce($2::timestamptz, 'infinity'),
                                                  coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
                        order by updated_at desc, id desc
                        limit $4) c
                 left join lateral (select id, role, content, created_at
                                      from messages
                                     where user_id = $1 and conversation_id = c.id
                                     order by created_at desc, id desc
                                     limit 1) m on true
                order by c.updated_at desc, c.id desc"#,
            user_id.as_uuid(),
            before,
            before_id,
            rows,
        )
        .fetch_all(self.conn.repeatable())
        .await?
        .into_iter()
        .map(|row| ConversationSummary {
            conversation: Conversation {
                id: row.id,
                user_id: row.user_id,
                title: row.title,
                created_at: row.created_at,
                updated_at: row.updated_at,
            },
            last_message: last_message(row.message_id, row.role, row.content, row.written_at),
        })
        .collect();
        Ok(Page::new(&page, list, items, |s: &ConversationSummary| {
            (s.conversation.updated_at, s.conversation.id.as_uuid())
        }))
    }

    /// [`page_with_last_message`](Self::page_with_last_message), each also with the number of its
    /// messages, in one statement. Counting reads the index entry of every message: for a page of long
    /// conversations it is most of the cost.
    ///
    /// # Errors
    ///
    /// As [`page_by_user`](Self::page_by_user).
    pub async fn page_with_message_count(
        self,
        user_id: UserId,
        page: PageRequest,
    ) -> Result<Page<ConversationOverview>> {
        self.conn.check_owner(user_id)?;
        let list = list_of(user_id);
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place(list)?;
        let items: Vec<_> = sqlx::query!(
            r#"select c.id, c.user_id, c.title, c.created_at, c.updated_at,
                      m.id as "message_id?", m.role as "role?: String", m.content as "content?",
                      m.created_at as "written_at?",
                      (select count(*) from messages
                        where user_id = $1 and conversation_id = c.id) as "message_count!"
                 from (select id, user_id, title, created_at, updated_at
                         from conversations
                        where user_id = $1
                          and (updated_at, id) < (coalesce($2::timestamptz, 'infinity'),
                                                  coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
                        order by updated_at desc, id desc
                        limit $4) c
                 left join lateral (select id, role, content, created_at
                                      from messages
                                     where user_id = $1 and conversation_id = c.id
                                     order by created_at desc, id desc
                                     limit 1) m on true
                order by c.updated_at desc, c.id desc"#,
            user_id.as_uuid(),
            before,
            before_id,
            rows,
        )
        .fetch_all(self.conn.repeatable())
        .await?
        .into_iter()
        .map(|row| ConversationOverview {
            summary: ConversationSummary {
                conversation: Conversation {
                    id: row.id,
                    user_id: row.user_id,
                    title: row.title,
                    created_at: row.created_at,
                    updated_at: row.updated_at,
                },
                last_message: last_message(row.message_id, row.role, row.content, row.written_at),
            },
            message_count: row.message_count,
        })
        .collect();
        Ok(Page::new(&page, list, items, |o: &ConversationOverview| {
            (o.summary.conversation.updated_at, o.summary.conversation.id.as_uuid())
        }))
    }

    /// Everybody's conversations, latest activity first: for an operator's page.
    ///
    /// # Errors
    ///
    /// As [`list_by_user`](Self::list_by_user).
    pub async fn list_recent(self, limit: i64, offset: i64) -> Result<Vec<Conversation>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        Ok(by_owner!(
            self.conn.owner(),
            query_as!(
                Conversation,
                "select id, user_id, title, created_at, updated_at from conversations"
                    + owned(" where user_id = $3")
                    + " order by updated_at desc, id desc limit $1 offset $2",
                limit,
                offset,
            )
            .fetch_all(self.conn.repeatable())
            .await
        )?)
    }
}

/// What a left join found. A message that can't be read costs only itself, not its conversation.
fn last_message(
    id: Option<MessageId>,
    role: Option<String>,
    content: Option<String>,
    created_at: Option<DateTime<Utc>>,
) -> Option<LastMessage> {
    let (id, role) = (id?, role?);
    let Ok(role) = role.parse() else {
        rows::tell(&UnreadableRow { table: "messages", id: id.to_string(), column: "role".into() });
        return None;
    };
    Some(LastMessage { id, role, content: content?, created_at: created_at? })
}

/// The list of a user's conversations, which has several forms: a cursor of one is good for all.
fn list_of(user_id: UserId) -> List {
    List::by("conversations of a user", user_id.as_uuid())
}
