//! Conversations. `updated_at` is the time of the newest message: a trigger keeps it.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::message::{Message, MessageId, Role};
use super::new_message::{MessageColumns, MessageDraft};
use crate::db::id::{debug_fields, id};
use crate::db::page::limit_offset;
use crate::db::{Error, Page, PageRequest, Result, UnitOfWork, input};
use crate::identity::UserId;
use crate::repositories::{Access, repository};

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
    /// Its newest message; none while it has no messages.
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

impl ConversationRepository<'_> {
    /// Begins a conversation. A title has at most 500 characters.
    ///
    /// # Errors
    ///
    /// [`ForeignKey`](Error::ForeignKey) when there is no such user;
    /// [`InvalidInput`](Error::InvalidInput).
    pub async fn create(self, user_id: UserId, title: Option<&str>) -> Result<Conversation> {
        input::optional_text("title", title, 500)?;
        Ok(sqlx::query_as!(
            Conversation,
            "insert into conversations (id, user_id, title) values ($1, $2, $3)
             returning id, user_id, title, created_at, updated_at",
            ConversationId::new().as_uuid(),
            user_id.as_uuid(),
            title,
        )
        .fetch_one(self.conn)
        .await?)
    }

    /// Begins a conversation with its first messages, in one statement: all of it or nothing.
    /// They come back in the order given.
    ///
    /// ```no_run
    /// # use chancery::{Database, MessageDraft, UserId};
    /// # async fn example(db: Database, user_id: UserId) -> chancery::Result<()> {
    /// let turn = vec![
    ///     MessageDraft::user("Why the Moon?"),
    ///     MessageDraft::assistant("Because it is hard."),
    /// ];
    /// let begun =
    ///     db.conversations().create_with_messages(user_id, Some("Rice speech"), turn).await?;
    /// assert_eq!(begun.messages.len(), 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); [`InvalidInput`](Error::InvalidInput) also for messages of more
    /// than [`MAX_STATEMENT_BYTES`](crate::MAX_STATEMENT_BYTES);
    /// [`Conflict`](Error::Conflict) when there is a message with an identifier that was given.
    pub async fn create_with_messages(
        self,
        user_id: UserId,
        title: Option<&str>,
        messages: Vec<MessageDraft>,
    ) -> Result<ConversationWithMessages> {
        input::optional_text("title", title, 500)?;
        let new = MessageColumns::new(messages)?;
        if new.ids.is_empty() {
            let conversation = self.create(user_id, title).await?;
            return Ok(ConversationWithMessages { conversation, messages: Vec::new() });
        }
        let id = ConversationId::new();
        // Texts come back as they were sent, so they need not; jsonb writes numbers in its own way.
        let mut rows = sqlx::query!(
            r#"with c as (
                   insert into conversations (id, user_id, title)
                   values ($1, $2, $3)
                   returning created_at, updated_at
               ), m as (
                   insert into messages (id, conversation_id, user_id, role, content, metadata)
                   select n.id, $1, $2, n.role, n.content, n.metadata
                     from unnest($4::uuid[], $5::text[], $6::text[], $7::jsonb[])
                          as n (id, role, content, metadata)
                   returning id, metadata, created_at
               )
               select c.created_at as "begun_at!", c.updated_at as "updated_at!", m.id as "id!",
                      m.metadata as "metadata!", m.created_at as "written_at!"
                 from c, m"#,
            id.as_uuid(),
            user_id.as_uuid(),
            title,
            &new.ids,
            &new.role_names() as &[&str],
            &new.contents,
            &new.metadata,
        )
        .fetch_all(self.conn)
        .await?;
        input::sort_as(&new.ids, &mut rows, |row| row.id.as_uuid());
        let first = rows.first().ok_or(Error::NotFound("conversation"))?;
        let conversation = Conversation {
            id,
            user_id,
            title: title.map(str::to_owned),
            created_at: first.begun_at,
            updated_at: first.updated_at,
        };
        let written = rows.into_iter().zip(new.roles.into_iter().zip(new.contents));
        let messages = written.map(|(row, (role, content))| Message {
            id: row.id,
            conversation_id: id,
            user_id,
            role,
            content,
            metadata: row.metadata,
            created_at: row.written_at,
        });
        Ok(ConversationWithMessages { conversation, messages: messages.collect() })
    }
}

impl<A: Access> ConversationRepository<'_, A> {
    /// The conversation with this identifier.
    pub async fn get_by_id(self, id: ConversationId) -> Result<Option<Conversation>> {
        Ok(sqlx::query_as!(
            Conversation,
            "select id, user_id, title, created_at, updated_at from conversations where id = $1",
            id.as_uuid(),
        )
        .fetch_optional(self.conn)
        .await?)
    }

    /// A user's conversations, latest activity first. For long lists use
    /// [`page_by_user`](Self::page_by_user): an offset reads what it skips.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list_by_user(
        self,
        user_id: UserId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Conversation>> {
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
        .fetch_all(self.conn)
        .await?)
    }

    /// A page of a user's conversations, latest activity first.
    ///
    /// A conversation that is spoken in while a client pages moves to the front: it may be met twice,
    /// or not at all after its old place was passed.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a size outside of 1 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE).
    pub async fn page_by_user(
        self,
        user_id: UserId,
        page: PageRequest,
    ) -> Result<Page<Conversation>> {
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place()?;
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
        .fetch_all(self.conn)
        .await?;
        Ok(Page::new(&page, items, |c| (c.updated_at, c.id.as_uuid())))
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
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place()?;
        let items = sqlx::query!(
            r#"select c.id, c.user_id, c.title, c.created_at, c.updated_at,
                      m.id as "message_id?", m.role as "role?", m.content as "content?",
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
                                     where conversation_id = c.id
                                     order by created_at desc, id desc
                                     limit 1) m on true
                order by c.updated_at desc, c.id desc"#,
            user_id.as_uuid(),
            before,
            before_id,
            rows,
        )
        .fetch_all(self.conn)
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
        Ok(Page::new(&page, items, |s: &ConversationSummary| {
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
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place()?;
        let items = sqlx::query!(
            r#"select c.id, c.user_id, c.title, c.created_at, c.updated_at,
                      m.id as "message_id?", m.role as "role?", m.content as "content?",
                      m.created_at as "written_at?",
                      (select count(*) from messages where conversation_id = c.id)
                          as "message_count!"
                 from (select id, user_id, title, created_at, updated_at
                         from conversations
                        where user_id = $1
                          and (updated_at, id) < (coalesce($2::timestamptz, 'infinity'),
                                                  coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
                        order by updated_at desc, id desc
                        limit $4) c
                 left join lateral (select id, role, content, created_at
                                      from messages
                                     where conversation_id = c.id
                                     order by created_at desc, id desc
                                     limit 1) m on true
                order by c.updated_at desc, c.id desc"#,
            user_id.as_uuid(),
            before,
            before_id,
            rows,
        )
        .fetch_all(self.conn)
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
        Ok(Page::new(&page, items, |o: &ConversationOverview| {
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
        Ok(sqlx::query_as!(
            Conversation,
            "select id, user_id, title, created_at, updated_at
               from conversations
              order by updated_at desc, id desc
              limit $1 offset $2",
            limit,
            offset,
        )
        .fetch_all(self.conn)
        .await?)
    }
}

impl ConversationRepository<'_> {
    /// Gives a conversation another title, or none.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound); [`InvalidInput`](Error::InvalidInput).
    pub async fn update_title(
        self,
        id: ConversationId,
        title: Option<&str>,
    ) -> Result<Conversation> {
        input::optional_text("title", title, 500)?;
        sqlx::query_as!(
            Conversation,
            "update conversations set title = $2 where id = $1
             returning id, user_id, title, created_at, updated_at",
            id.as_uuid(),
            title,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(Error::NotFound("conversation"))
    }

    /// Deletes a conversation with its messages. Says whether there was one.
    pub async fn delete(self, id: ConversationId) -> Result<bool> {
        let done = sqlx::query!("delete from conversations where id = $1", id.as_uuid())
            .execute(self.conn)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}

/// What a left join found.
fn last_message(
    id: Option<MessageId>,
    role: Option<Role>,
    content: Option<String>,
    created_at: Option<DateTime<Utc>>,
) -> Option<LastMessage> {
    Some(LastMessage { id: id?, role: role?, content: content?, created_at: created_at? })
}

impl UnitOfWork {
    /// The conversation, locked until this unit of work ends: nobody else changes it meanwhile, and
    /// whoever wants to, waits. Messages can be added to it all the same, but their transactions wait.
    ///
    /// # Errors
    ///
    /// [`LockTimeout`](Error::LockTimeout) where the session has a `lock_timeout`.
    pub async fn lock_conversation(&mut self, id: ConversationId) -> Result<Option<Conversation>> {
        Ok(sqlx::query_as!(
            Conversation,
            "select id, user_id, title, created_at, updated_at
               from conversations
              where id = $1
                for no key update",
            id.as_uuid(),
        )
        .fetch_optional(self.executor())
        .await?)
    }
}
