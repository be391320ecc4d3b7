"""The model of the page's example with SQLAlchemy."""

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """What all models share."""


class Document(Base):
    """A saved document."""

    __tablename__ = "documents"
    name: Mapped[str] = mapped_column(primary_key=True)
