"""SQL that is put together before it is known which row it is asked of."""

from dataclasses import dataclass

from psycopg import sql


@dataclass(frozen=True)
class Expression:
    """SQL over the columns of one row."""

    pieces: tuple[str, ...]
    """SQL, the name of a column, SQL, …"""

    @classmethod
    def of(cls, *parts: "str | Expression") -> "Expression":
        """SQL and expressions, one after the other."""
        pieces = [""]
        for part in parts:
            first, *more = (part,) if isinstance(part, str) else part.pieces
            pieces[-1] += first
            pieces += more
        return cls(tuple(pieces))

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(self.pieces[1::2]))

    @property
    def template(self) -> str:
        """It as people read it, with its columns in braces."""
        return "".join(f"{{{p}}}" if at % 2 else p for at, p in enumerate(self.pieces))

    def sql(self, alias: str = "") -> str:
        """It, over the columns of the row that ``alias`` stands for."""
        of = f"{alias}." if alias else ""
        parts = (f"{of}{sql.Identifier(p).as_string()}" if at % 2 else p for at, p in enumerate(self.pieces))
        return f"({''.join(parts)}\n)" if "--" in self.pieces[-1] else f"({''.join(parts)})"
