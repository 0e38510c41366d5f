//! What is measured.

use crate::contender::{ChunkInput, Contender, Outcome};
use crate::data::Data;
use std::sync::Arc;
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workload {
    GetById,
    GetByEmail,
    InsertMessage,
    Turn,
    ConversationPage,
    FirstPage,
    DeepPage,
    CreateChunks,
    LoadChunks,
    ReadChunks,
    ReadChunksRaw,
    ChunksByIds,
    Mixed,
}

pub const PAGE: i64 = 20;
pub const CREATED: usize = 1_000;
pub const LOADED: usize = 10_000;
pub const WANTED: usize = 100;

impl Workload {
    pub const ALL: [Self; 13] = [
        Self::GetById,
        Self::GetByEmail,
        Self::InsertMessage,
        Self::Turn,
        Self::ConversationPage,
        Self::FirstPage,
        Self::DeepPage,
        Self::CreateChunks,
        Self::LoadChunks,
        Self::ReadChunks,
        Self::ReadChunksRaw,
        Self::ChunksByIds,
        Self::Mixed,
    ];

    /// A name to choose it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::GetById => "get-by-id",
            Self::GetByEmail => "get-by-email",
            Self::InsertMessage => "insert-message",
            Self::Turn => "turn",
            Self::ConversationPage => "conversation-page",
            Self::FirstPage => "first-page",
            Self::DeepPage => "deep-page",
            Self::CreateChunks => "create-chunks",
            Self::LoadChunks => "load-chunks",
            Self::ReadChunks => "read-chunks",
            Self::ReadChunksRaw => "read-chunks-raw",
            Self::ChunksByIds => "chunks-by-ids",
            Self::Mixed => "mixed",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::GetById => "get a user by id",
            Self::GetByEmail => "get a user by e-mail",
            Self::InsertMessage => "insert a message, row returned",
            Self::Turn => "the turn: a conversation and two messages, atomic",
            Self::ConversationPage => "a page of 20 conversations",
            Self::FirstPage => "page 1 of a conversation of 200,000 messages (20 rows)",
            Self::DeepPage => "the same at depth 100,000",
            Self::CreateChunks => "store 1,000 chunks, rows returned",
            Self::LoadChunks => "store 10,000 chunks with the client's ids",
            Self::ReadChunks => "read 1,000 chunks",
            Self::ReadChunksRaw => "read 1,000 chunks, metadata as raw JSON",
            Self::ChunksByIds => "read 100 chunks by id",
            Self::Mixed => {
                "mixed: 60 % user by id, 20 % page of messages, 10 % insert, 5 % page of conversations, 5 % turn"
            }
        }
    }

    /// With how many clients at once it is measured.
    pub fn clients(self) -> &'static [usize] {
        match self {
            Self::GetById => &[1, 8, 32, 200],
            Self::Turn => &[1, 8, 32],
            Self::Mixed => &[8, 200],
            Self::CreateChunks | Self::LoadChunks => &[1],
            _ => &[8],
        }
    }

    /// Whether it fills the table of chunks, which is emptied again after each sample.
    pub fn stores_chunks(self) -> bool {
        matches!(self, Self::CreateChunks | Self::LoadChunks)
    }

    /// What one operation gets, made before it is timed.
    pub fn prepare(self, data: &Data, random: &mut fastrand::Rng) -> Input {
        let user = random.usize(..data.users.len());
        match self {
            Self::GetById => Input::Id(data.users[user]),
            Self::GetByEmail => Input::User(user),
            Self::CreateChunks => Input::Chunks(data.new_chunks(CREATED)),
            Self::LoadChunks => Input::Chunks(data.new_chunks(LOADED)),
            Self::ReadChunks | Self::ReadChunksRaw => {
                Input::Id(data.transcripts[random.usize(..data.transcripts.len())])
            }
            Self::ChunksByIds => {
                let ids = std::iter::repeat_with(|| data.chunks[random.usize(..data.chunks.len())]);
                Input::Ids(ids.take(WANTED).collect())
            }
            Self::Mixed => match random.u8(..100) {
                0..60 => Input::Mixed(Self::GetById, data.users[user]),
                60..80 => Input::Mixed(Self::FirstPage, data.long_conversation),
                80..90 => Input::Mixed(Self::InsertMessage, data.conversation(random)),
                90..95 => Input::Mixed(Self::ConversationPage, data.owner),
                _ => Input::Mixed(Self::Turn, data.owner),
            },
            Self::InsertMessage => Input::Id(data.conversation(random)),
            Self::Turn | Self::ConversationPage => Input::Id(data.owner),
            Self::FirstPage | Self::DeepPage => Input::Id(data.long_conversation),
        }
    }
}

pub enum Input {
    Id(Uuid),
    User(usize),
    Ids(Vec<Uuid>),
    Chunks(Vec<ChunkInput>),
    Mixed(Workload, Uuid),
}

const QUESTION: &str = "Why does this, of all goals, deserve the first ten years of the programme?";
const ANSWER: &str = "Because it organises and measures the best of our energies and skills: the speech \
                      names the difficulty itself as the reason, and the chunks cited say so twice.";

/// Runs one operation, and checks what it gave.
pub async fn operation<C: Contender>(
    contender: &Arc<C>,
    workload: Workload,
    data: &Data,
    input: Input,
) -> Outcome<()> {
    let (workload, id) = match input {
        Input::Chunks(chunks) => {
            let sent = chunks.len();
            let stored = match workload {
                Workload::CreateChunks => contender.create_chunks(chunks).await?,
                _ => contender.load_chunks(chunks).await?,
            };
            return expect(stored, sent);
        }
        Input::Ids(mut ids) => {
            let found = contender.chunks_by_ids(&ids).await?;
            ids.sort_unstable();
            ids.dedup();
            return if found == WANTED { Ok(()) } else { expect(found, ids.len()) };
        }
        Input::User(place) => {
            let found = contender.get_by_email(&data.emails[place]).await?;
            return expect(found, data.users[place]);
        }
        Input::Mixed(workload, id) => (workload, id),
        Input::Id(id) => (workload, id),
    };
    match workload {
        Workload::GetById => expect(contender.get_by_id(id).await?, id),
        Workload::InsertMessage => {
            contender.insert_message(id, data.owner, QUESTION).await.map(drop)
        }
        Workload::Turn => contender.turn(id, QUESTION, ANSWER).await.map(drop),
        Workload::ConversationPage => {
            expect(contender.conversation_page(id, PAGE).await?, PAGE as usize)
        }
        Workload::FirstPage => expect(contender.message_page(id, None, PAGE).await?, PAGE as usize),
        Workload::DeepPage => {
            let place = Some(data.deep_place);
            expect(contender.message_page(id, place, PAGE).await?, PAGE as usize)
        }
        Workload::ReadChunks => expect(contender.read_chunks(id).await?, CREATED),
        Workload::ReadChunksRaw => expect(contender.read_chunks_raw(id).await?, CREATED),
        _ => unreachable!("it has an input of its own"),
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Outcome<()> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{found:?} where {expected:?} was expected").into())
    }
}
