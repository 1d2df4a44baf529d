"""What the Google Docs tables hold, and what makes a version of each."""

from dlt_sources.versions import Resource

DOCUMENTS = Resource(
    "documents",
    # Addresses of pictures expire within the hour; how a document was asked for, its comments, and
    # what would look different if a suggestion were accepted, are not what it says. What a
    # suggestion would insert is in the text, and can be told from it only there.
    volatile=tuple(
        f"**.{name}"
        for name in (
            "commentAnchors",
            "comments",
            "commentsViewMode",
            "contentUri",
            "revisionId",
            "suggestedBulletChanges",
            "suggestedDateElementPropertiesChanges",
            "suggestedDeletionIds",
            "suggestedDocumentStyleChanges",
            "suggestedDropdownPropertiesChanges",
            "suggestedInlineObjectPropertiesChanges",
            "suggestedListPropertiesChanges",
            "suggestedNamedStylesChanges",
            "suggestedParagraphStyleChanges",
            "suggestedPositionedObjectIds",
            "suggestedPositionedObjectPropertiesChanges",
            "suggestedTableCellStyleChanges",
            "suggestedTableRowStyleChanges",
            "suggestedTextStyleChanges",
            "suggestions",
            "suggestionsViewMode",
        )
    ),
    swept=True,
)
FILES = Resource(
    "files",
    # What depends on who asks, on when, and on how Google keeps the file.
    volatile=(
        "capabilities",
        "exportLinks",
        "hasThumbnail",
        "iconLink",
        "isAppAuthorized",
        "lastModifyingUser.me",
        "lastModifyingUser.photoLink",
        "modifiedByMe",
        "modifiedByMeTime",
        "ownedByMe",
        "owners.me",
        "owners.photoLink",
        "permissions.photoLink",
        "quotaBytesUsed",
        "sharedWithMeTime",
        "sharingUser",
        "size",
        "starred",
        "thumbnailLink",
        "thumbnailVersion",
        "version",
        "viewedByMe",
        "viewedByMeTime",
    ),
    metadata=(
        "driveId",
        "lastModifyingUser",
        "owners",
        "parents",
        "permissionIds",
        "permissions",
        "webViewLink",
    ),
    swept=True,
)

# A sweep that would delete a larger share of what an export covers is taken for a broken export …
MAX_DELETED_SHARE = 0.3
# … unless it is about fewer objects than this.
MIN_SUSPICIOUS_DELETIONS = 20
