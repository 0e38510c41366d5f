"""SQLAlchemy 2 with asyncpg: told what to run, a JSON object a line, and answers with a JSON object."""

import asyncio
import datetime
import json
import random
import resource
import sys
import time
import uuid

import uvloop
from sqlalchemy import ForeignKey, String, Text, func, insert, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Time = TIMESTAMP(timezone=True)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(255))
    password_hash: Mapped[str | None] = mapped_column(String(255))
    name: Mapped[str | None] = mapped_column(String(100))
    profile_picture: Mapped[str | None] = mapped_column(String(255))
    profession: Mapped[str | None] = mapped_column(String(100))
    date_of_birth: Mapped[datetime.date | None]
    timezone: Mapped[str] = mapped_column(String(50))
    is_active: Mapped[bool]
    last_login: Mapped[datetime.datetime | None] = mapped_column(Time)
    created_at: Mapped[datetime.datetime] = mapped_column(Time, server_default=func.now())
    updated_at: Mapped[datetime.datetime] = mapped_column(Time, server_default=func.now())


class Conversation(Base):
    __tablename__ = "conversations"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    title: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[datetime.datetime] = mapped_column(Time, server_default=func.now())
    updated_at: Mapped[datetime.datetime] = mapped_column(Time, server_default=func.now())
    __mapper_args__ = {"eager_defaults": True}


class Message(Base):
    __tablename__ = "messages"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    conversation_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("conversations.id"))
    user_id: Mapped[uuid.UUID]
    role: Mapped[str] = mapped_column(String(50))
    content: Mapped[str] = mapped_column(Text)
    # `metadata` is SQLAlchemy's own word.
    notes: Mapped[dict] = mapped_column("metadata", JSONB)
    created_at: Mapped[datetime.datetime] = mapped_column(Time, server_default=func.now())
    __mapper_args__ = {"eager_defaults": True}


class Chunk(Base):
    __tablename__ = "chunks"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    transcript_id: Mapped[uuid.UUID]
    user_id: Mapped[uuid.UUID]
    chunk_text: Mapped[str] = mapped_column(Text)
    chunk_index: Mapped[int]
    token_count: Mapped[int]
    notes: Mapped[dict] = mapped_column("metadata", JSONB)
    created_at: Mapped[datetime.datetime] = mapped_column(Time, server_default=func.now())


QUESTION = "Why does this, of all goals, deserve the first ten years of the programme?"
ANSWER = (
    "Because it organises and measures the best of our energies and skills: the speech names the "
    "difficulty itself as the reason, and the chunks cited say so twice."
)


class Contender:
    def __init__(self, url, connections):
        engine = create_async_engine(url, pool_size=connections, max_overflow=0, pool_timeout=60)
        self.session = async_sessionmaker(engine, expire_on_commit=False)

    async def get_by_id(self, user_id):
        async with self.session() as session:
            assert (await session.get(User, user_id)).id == user_id

    async def get_by_email(self, email):
        async with self.session() as session:
            query = select(User).where(func.lower(User.email) == func.lower(email))
            assert (await session.scalars(query)).one().email == email

    @staticmethod
    def message(conversation_id, user_id, role, content):
        return Message(
            id=uuid.uuid4(), conversation_id=conversation_id, user_id=user_id, role=role,
            content=content, notes={},
        )

    async def insert_message(self, conversation_id, user_id):
        async with self.session.begin() as session:
            session.add(self.message(conversation_id, user_id, "user", QUESTION))

    async def turn(self, user_id):
        async with self.session.begin() as session:
            conversation = Conversation(id=uuid.uuid4(), user_id=user_id, title="A turn")
            session.add(conversation)
            await session.flush()
            session.add(self.message(conversation.id, user_id, "user", QUESTION))
            session.add(self.message(conversation.id, user_id, "assistant", ANSWER))

    async def conversation_page(self, user_id):
        async with self.session() as session:
            query = (
                select(Conversation).where(Conversation.user_id == user_id)
                .order_by(Conversation.updated_at.desc(), Conversation.id.desc()).limit(20)
            )
            assert len((await session.scalars(query)).all()) == 20

    async def message_page(self, conversation_id, after):
        async with self.session() as session:
            query = select(Message).where(Message.conversation_id == conversation_id)
            if after:
                query = query.where(tuple_(Message.created_at, Message.id) > tuple_(*after))
            query = query.order_by(Message.created_at, Message.id).limit(20)
            assert len((await session.scalars(query)).all()) == 20

    async def create_chunks(self, rows):
        async with self.session.begin() as session:
            stored = await session.scalars(insert(Chunk).returning(Chunk), rows)
            assert len(stored.all()) == len(rows)

    async def load_chunks(self, rows):
        async with self.session.begin() as session:
            session.add_all([Chunk(**row) for row in rows])

    async def read_chunks(self, transcript_id):
        async with self.session() as session:
            query = (
                select(Chunk).where(Chunk.transcript_id == transcript_id)
                .order_by(Chunk.chunk_index).limit(1000)
            )
            assert len((await session.scalars(query)).all()) == 1000

    async def chunks_by_ids(self, ids):
        async with self.session() as session:
            found = await session.scalars(select(Chunk).where(Chunk.id.in_(ids)))
            assert len(found.all()) == len(set(ids))


class Data:
    def __init__(self, data):
        ids = lambda name: [uuid.UUID(text) for text in data[name]]
        self.users, self.emails = ids("users"), data["emails"]
        self.conversations, self.transcripts, self.chunks = (
            ids("conversations"), ids("transcripts"), ids("chunks"),
        )
        self.owner, self.filled = uuid.UUID(data["owner"]), uuid.UUID(data["filled"])
        self.long_conversation = uuid.UUID(data["long_conversation"])
        self.deep_place = (
            datetime.datetime.fromisoformat(data["deep_time"]), uuid.UUID(data["deep_id"]),
        )
        self.next_index = 0

    def new_chunks(self, count):
        first, self.next_index = self.next_index, self.next_index + count
        return [
            {
                "id": uuid.uuid4(), "transcript_id": self.filled, "user_id": self.owner,
                "chunk_text": f"Chunk {n}" + " of a long speech" * 40, "chunk_index": n,
                "token_count": 160,
                "notes": {
                    "start": n * 12.5, "end": n * 12.5 + 12.5, "speaker": f"S{n % 4}",
                    "words": ["moon", "decade", "goal"],
                },
            }
            for n in range(first, first + count)
        ]


def operation(contender, workload, data):
    """One operation, ready to be awaited: what it is given is made before it is timed."""
    if workload == "mixed":
        share = random.random()
        workload = (
            "get-by-id" if share < 0.6 else "first-page" if share < 0.8
            else "insert-message" if share < 0.9 else "conversation-page" if share < 0.95 else "turn"
        )
    match workload:
        case "get-by-id":
            return contender.get_by_id(random.choice(data.users))
        case "get-by-email":
            return contender.get_by_email(random.choice(data.emails))
        case "insert-message":
            return contender.insert_message(random.choice(data.conversations), data.owner)
        case "turn":
            return contender.turn(data.owner)
        case "conversation-page":
            return contender.conversation_page(data.owner)
        case "first-page":
            return contender.message_page(data.long_conversation, None)
        case "deep-page":
            return contender.message_page(data.long_conversation, data.deep_place)
        case "create-chunks":
            return contender.create_chunks(data.new_chunks(1000))
        case "load-chunks":
            return contender.load_chunks(data.new_chunks(10000))
        case "read-chunks":
            return contender.read_chunks(random.choice(data.transcripts))
        case "chunks-by-ids":
            return contender.chunks_by_ids(random.sample(data.chunks, 100))


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def run(contender, order):
    data = Data(order["data"])
    begin = time.perf_counter() + max(order["seconds"] * 0.15, 0.03)
    end = begin + order["seconds"]
    latencies = []

    async def client():
        own = 0
        while True:
            ready = operation(contender, order["workload"], data)
            started = time.perf_counter()
            await ready
            ended = time.perf_counter()
            if started >= begin and (ended <= end or own == 0):
                latencies.append(ended - started)
                own += 1
            if ended >= end and own > 0:
                return

    async def watch():
        await asyncio.sleep(begin - time.perf_counter())
        before = cpu()
        await asyncio.sleep(end - time.perf_counter())
        return cpu() - before

    used, *_ = await asyncio.gather(watch(), *(client() for _ in range(order["clients"])))
    latencies.sort()
    count = len(latencies)
    return {
        "rate": count * order["clients"] / sum(latencies),
        "p50": latencies[count // 2] * 1e6,
        "p99": latencies[count * 99 // 100] * 1e6,
        "cpu": used * 1e6 / count,
    }


async def main():
    url = sys.argv[1].replace("postgresql://", "postgresql+asyncpg://").replace("postgres://", "postgresql+asyncpg://")
    contender = Contender(url.split("?")[0], int(sys.argv[2]))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await run(contender, json.loads(line))), flush=True)


uvloop.run(main())
