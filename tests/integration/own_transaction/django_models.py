"""The model of the page's example with Django."""

from django.db import models


class Document(models.Model):
    """A saved document."""

    name = models.TextField(primary_key=True)

    class Meta:
        """Where it is stored."""

        app_label = "shop"
        db_table = "documents"

    def __str__(self) -> str:
        return self.name
