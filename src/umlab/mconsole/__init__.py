"""The management console of a guest: a sans-IO session, an asyncio and a blocking client."""
