CREATE TABLE conversations (
    id           text COLLATE "C" PRIMARY KEY,
    metadata     jsonb,
    metadata_raw bytea       NOT NULL,
    tombstoned   boolean     NOT NULL,
    version      bigint      NOT NULL,
    last_seq     bigint      NOT NULL,
    archived_seq bigint      NOT NULL,
    head         bytea       NOT NULL,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    CHECK (archived_seq >= 0 AND length(head) = 32)
) WITH (fillfactor = 80);

CREATE TABLE messages (
    conversation_id text COLLATE "C" NOT NULL,
    seq             bigint      NOT NULL,
    version         bigint      NOT NULL,
    message_id      text,
    role            text        NOT NULL,
    parts           jsonb,
    metadata        jsonb,
    token_count     bigint      NOT NULL,
    inserted_at     timestamptz NOT NULL,
    exact           boolean     NOT NULL,
    hash            bytea       NOT NULL,
    body            bytea       NOT NULL,
    PRIMARY KEY (conversation_id, seq)
) PARTITION BY HASH (conversation_id);

DO $$
BEGIN
    FOR i IN 0..31 LOOP
        EXECUTE format('CREATE TABLE messages_%s PARTITION OF messages FOR VALUES WITH (MODULUS 32, REMAINDER %s)',
                       lpad(i::text, 2, '0'), i);
    END LOOP;
END $$;

CREATE INDEX messages_inserted_at ON messages USING brin (inserted_at) WITH (pages_per_range = 32, autosummarize = on);

COMMENT ON TABLE conversations IS 'Conversations of a fastpaca cluster. Read freely; only fastpaca writes.';
COMMENT ON TABLE messages IS 'Every message of every conversation. Read freely; only fastpaca writes.';
COMMENT ON COLUMN conversations.archived_seq IS 'messages holds every message up to this one';
COMMENT ON COLUMN conversations.head IS 'hash of the message archived_seq';
COMMENT ON COLUMN messages.body IS 'the message as the API serves it, byte for byte; convert_from(body, ''UTF8'')::json';
COMMENT ON COLUMN messages.exact IS 'whether role, parts, metadata and token_count say exactly what body says; jsonb cannot hold everything JSON can';
COMMENT ON COLUMN messages.hash IS 'SHA-256 of the hash of the message before, seq as 8 big-endian bytes, and body';
