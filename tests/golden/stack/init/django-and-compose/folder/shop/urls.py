"""Example: urlpatterns = [path("", views.home)]."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("orders/", include("orders.urls")),
    path("manage/", admin.site.urls),
]
